"""What an operation returns, by the model of it that the AWS CLI works with."""

from __future__ import annotations

from functools import cache
from typing import Any


def sample_output(service: str, operation: str) -> dict[str, Any]:
    """Return a sample of what an operation returns, with every member that its model has.

    Args:
        service: The name of the service in botocore's data, such as ``codepipeline``.
        operation: The name of the operation in the API reference.
    """
    sample: dict[str, Any] = _sample(_output_shape(service, operation), operation)
    return sample


@cache
def _output_shape(service: str, operation: str) -> Any:
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    model = ServiceModel(Loader().load_service_model(service, "service-2"))
    return model.operation_model(operation).output_shape


def _sample(shape: Any, name: str) -> Any:
    """Return a value of the shape: the first of an enumeration, or else its own name."""
    if shape.type_name == "structure":
        return {key: _sample(member, key) for key, member in shape.members.items()}
    if shape.type_name == "list":
        return [_sample(shape.member, name)]
    if shape.type_name == "map":
        return {shape.key.name: _sample(shape.value, shape.value.name)}
    return next(iter(shape.enum), name)
