"""A job, its document in every shape that AWS returns, its result, and past executions.

Secrets of a job mask themselves when they are printed (:class:`cpstage.job.Secret`).
"""

from cpstage.job.document import Document as Document
from cpstage.job.document import mask_document as mask_document
from cpstage.job.document import parse_job as parse_job
from cpstage.job.document import saved_document as saved_document
from cpstage.job.model import APART as APART
from cpstage.job.model import ActionTypeId as ActionTypeId
from cpstage.job.model import Artifact as Artifact
from cpstage.job.model import ArtifactName as ArtifactName
from cpstage.job.model import ArtifactSet as ArtifactSet
from cpstage.job.model import EncryptionKey as EncryptionKey
from cpstage.job.model import Job as Job
from cpstage.job.model import PipelineContext as PipelineContext
from cpstage.job.model import ReadWith as ReadWith
from cpstage.job.model import S3Location as S3Location
from cpstage.job.model import Secret as Secret
from cpstage.job.model import SessionCredentials as SessionCredentials
from cpstage.job.model import artifact_document as artifact_document
from cpstage.job.model import check_artifact_name as check_artifact_name
from cpstage.job.model import check_job_directory as check_job_directory
from cpstage.job.model import choose as choose
from cpstage.job.model import location_document as location_document
from cpstage.job.model import plain_name as plain_name
