"""`/v1/migrations/{id}/tune`: change a running copy."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from sterna.api.access import needs
from sterna.api.dependencies import LARGEST, MigrationId, Served
from sterna.api.migration_models import MigrationOut
from sterna.api.problems import documented
from sterna.domain.access import Action

router = APIRouter(prefix="/v1", tags=["migrations"], dependencies=[needs(Action.TUNE)])


class TuneIn(BaseModel):
    """Changes to a running copy."""

    model_config = ConfigDict(extra="forbid")
    bandwidth_bytes_s: int | None = Field(
        strict=True,
        ge=2**20,
        le=LARGEST,
        description="New bandwidth limit for the copy; null: no limit.",
    )


@router.post("/migrations/{id}/tune", status_code=202, summary="Change a running copy",
             responses=documented(404, 409, 503, 504))  # fmt: skip
async def tune_migration(id: MigrationId, wanted: TuneIn, controller: Served) -> MigrationOut:
    """Takes effect at once. 409 if no copy is running."""
    return MigrationOut.of(await controller.tune(id, wanted.bandwidth_bytes_s))
