"""What a VM's system tags do: the address of a NIC, the host name, the firmware, a short life.

They are declared in ``crds.v1alpha1.virtual_machine``; here is their effect.
"""

from __future__ import annotations

from typing import cast

from agents.wire import BootMode
from controller.reconcile.actuator import Store
from controller.rights import on
from controller.workflow.step import Scope, Step
from crds.tags import all_of, one_of
from crds.v1alpha1.virtual_machine import Nic, VirtualMachine

RIGHTS = (on(VirtualMachine, "delete"),)


def wanted_nics(vm: VirtualMachine) -> list[Nic]:
    """The spec's NICs, with the addresses that staticIp tags give to those that ask for none."""
    asked = {tag["l3Network"]: tag["ip"] for tag in all_of(vm, "staticIp")}
    nics = []
    for nic in vm.spec.nics:
        ip = asked.pop(nic.l3_network_ref.name, None)  # the first one on the network has it
        nics.append(nic if ip is None or nic.ip else nic.model_copy(update={"ip": ip}))
    return nics


def hostname_of(vm: VirtualMachine) -> str:
    """What the guest is called: in its cloud-init seed, by DHCP, in its definition."""
    tag = one_of(vm, "hostname")
    return vm.spec.hostname or (tag["hostname"] if tag else vm.name)


def boot_mode_of(vm: VirtualMachine, store: Store) -> BootMode | None:
    """The VM's own tag, else its image's; of an image that is gone, what it was last.

    None: what the machine type does by itself."""
    image = store.get("Image", vm.spec.image_ref.name)
    for obj in (vm, image):
        tag = one_of(obj, "bootMode") if obj is not None else None
        if tag is not None:
            return cast(BootMode, tag["mode"])
    before = vm.status.boot_mode if image is None else ""
    return cast(BootMode, before) if before else None


def is_ephemeral(vm: VirtualMachine) -> bool:
    return one_of(vm, "ephemeral") is not None


class RemoveEphemeral(Step):
    """A stopped VM with the tag ``ephemeral`` is deleted, whoever or whatever stopped it. The API
    has it marked before the flow ends, so that nothing starts it again."""

    name = "remove-ephemeral"
    no_rollback = "what is marked as deleted cannot be brought back"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        if is_ephemeral(vm) and not vm.deleting:
            await ctx.objects.delete(vm)
            ctx.events.normal(
                vm, "EphemeralStopped", "it was stopped, and is deleted with its disks"
            )
