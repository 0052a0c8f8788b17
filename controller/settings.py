"""What a deployment may set. Every field is an environment variable, KUMULUS_<FIELD>, too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from controller.reconcile.actuator import Tuning

PREFIX = "KUMULUS_"
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


class BadSettings(Exception):
    """A setting cannot be used; the message names it and says why."""


class Settings(BaseModel):
    """Settings of one controller process. Sizes are in bytes, times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kubeconfig: Path | None = Field(
        default=None, description="Absent: $KUBECONFIG, then ~/.kube/config, then in-cluster."
    )
    context: str | None = Field(default=None, description="Absent: the kubeconfig's current one.")
    namespace: str = Field(
        default="kumulus-system",
        description="Where the controllers' ring and Leases are; made if missing.",
    )
    data_dir: Path = Path(".kumulus")
    pki_dir: Path | None = Field(
        default=None, description="CA and the controller's certificates; absent: <data_dir>/pki."
    )
    database_url: str | None = Field(
        default=None, description="SQLAlchemy URL of the ledger; absent: SQLite in data_dir."
    )

    controller_host: str = "127.0.0.1"
    controller_port: Port = 7071
    advertise_address: str | None = Field(
        default=None, description="What agents (and API servers) call; absent: controller_host."
    )
    admission: Literal["on", "serve", "off", "remove"] = Field(
        default="off",
        description="on: have the API server ask this controller before it stores objects of our "
        "kinds, at advertise_address; serve: answer who asks, others tell the API server; "
        "remove: end what on began; off: leave it as it is.",
    )
    agent_port: Port = 7070
    ping_interval: Seconds = 10.0
    ping_timeout: Seconds = 10.0
    cpu_ratio: Seconds = 10.0
    memory_ratio: Seconds = 1.0
    storage_ratio: Seconds = 1.0
    reserved_memory: Annotated[int, Field(ge=0)] = 2**30
    reserved_storage: Annotated[int, Field(ge=0)] = 2**30

    concurrency: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=32, description="Objects of one kind worked on at a time."
    )
    reconcile_timeout: Seconds = Field(
        default=330.0, description="For one look at an object; a flow's pass has 300 of its own."
    )
    resync_interval: Seconds = Field(default=600.0, description="Every object is looked at again.")
    compare_interval: Seconds = Field(default=60.0, description="Keys are compared with a list.")
    lease_duration: Annotated[float, Field(ge=1)] = Field(
        default=10.0,
        description="A controller that does not renew its Lease for so long is taken for dead; it "
        "stops itself after two thirds of that.",
    )
    grace: Seconds = Field(
        default=0.3,
        description="For work under way, when its objects go to another controller or this one is "
        "told to stop.",
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_style: Literal["json", "text"] = "json"
    kill_at: str | None = Field(
        default=None,
        description="Crash tests: <flow>:<step>:<before|after|rollback>[@N], where to SIGKILL "
        "itself.",
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ, **given: Any) -> Self:
        """Settings from the environment; ``given`` ones (a command line's, None: not given) win.

        Raises BadSettings.
        """
        found = {
            name: environ[variable]
            for name in cls.model_fields
            if environ.get(variable := PREFIX + name.upper())
        }
        found |= {name: value for name, value in given.items() if value is not None}
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            raise BadSettings(_explain(error)) from None

    @property
    def pki(self) -> Path:
        return self.pki_dir or self.data_dir / "pki"

    @property
    def ledger_url(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'ledger.sqlite'}"

    @property
    def callback_host(self) -> str:
        return self.advertise_address or self.controller_host

    def tuning(self) -> Tuning:
        """What actuators may know of the settings."""
        return Tuning(**{name: getattr(self, name) for name in Tuning.__dataclass_fields__})


def _explain(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'])} (or {PREFIX}"
        f"{'_'.join(str(part) for part in problem['loc']).upper()}): {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False)
    )
