"""Small archives, made by the standard library and not by the code under test."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Mapping

Files = Mapping[str, str | bytes]


def zip_of(files: Files, *, modes: Mapping[str, int] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.compress_type = zipfile.ZIP_DEFLATED
            mode = (modes or {}).get(name, stat.S_IFREG | 0o644)
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def zip_with_link(name: str, target: str, files: Files | None = None) -> bytes:
    return zip_of({name: target, **(files or {})}, modes={name: stat.S_IFLNK | 0o777})


def tar_of(files: Files, *, mode: str = "w") -> bytes:
    return tar_of_members(
        [(_regular(name, content), content) for name, content in files.items()], mode
    )


def tar_of_members(members: list[tuple[tarfile.TarInfo, str | bytes]], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for info, content in members:
            data = content.encode() if isinstance(content, str) else content
            archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return buffer.getvalue()


def tar_member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


def _regular(name: str, content: str | bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = len(content.encode() if isinstance(content, str) else content)
    return info
