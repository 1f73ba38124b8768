// SPDX-License-Identifier: MIT
// One device control request: check what came, do it, answer.
#include "winepnp.h"

// Any IRQL. The input of that size, or NULL when the caller sent another one.
static const void *WpInput(PIRP irp, SIZE_T size)
{
    const IO_STACK_LOCATION *stack = IoGetCurrentIrpStackLocation(irp);
    return stack->Parameters.DeviceIoControl.InputBufferLength == size ? irp->AssociatedIrp.SystemBuffer : NULL;
}

// Any IRQL.
static NTSTATUS WpAnswer(PIRP irp, const void *answer, SIZE_T size, ULONG_PTR *information)
{
    if (IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.OutputBufferLength < size)
    {
        return STATUS_BUFFER_TOO_SMALL;
    }
    RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, answer, size);
    *information = size;
    return STATUS_SUCCESS;
}

// PASSIVE_LEVEL, worker.
static NTSTATUS WpNotice(PIRP irp, ULONG code, ULONG_PTR *information)
{
    const WINEPNP_NOTICE *notice = WpInput(irp, sizeof *notice);
    if (notice == NULL || notice->LinkCharacters > WINEPNP_LINK_CHARACTERS)
    {
        return STATUS_INVALID_PARAMETER;
    }
    WINEPNP_CALLED called = {0, STATUS_SUCCESS};
    NTSTATUS status = STATUS_SUCCESS;
    switch (code)
    {
    case WINEPNP_IOCTL_EXISTING:
        return WpExisting(notice);
    case WINEPNP_IOCTL_ARRIVE:
        status = WpArrive(notice, &called);
        break;
    case WINEPNP_IOCTL_REMOVE:
        status = WpRemove(notice, &called);
        break;
    default:
        WpDeliver(notice, &called);
        break;
    }
    return NT_SUCCESS(status) ? WpAnswer(irp, &called, sizeof called, information) : status;
}

// PASSIVE_LEVEL, worker.
static NTSTATUS WpProcessor(PIRP irp, ULONG_PTR *information)
{
    const WINEPNP_PROCESSOR *change = WpInput(irp, sizeof *change);
    if (change == NULL || change->State > KeProcessorAddFailureNotify)
    {
        return STATUS_INVALID_PARAMETER;
    }
    WINEPNP_CALLED called = {0, STATUS_SUCCESS};
    WpNotifyProcessor(change, &called);
    return WpAnswer(irp, &called, sizeof called, information);
}

// PASSIVE_LEVEL, worker.
static NTSTATUS WpSystem(PIRP irp)
{
    const WINEPNP_SYSTEM *figures = WpInput(irp, sizeof *figures);
    if (figures == NULL || figures->ActiveProcessors == 0 || figures->MaximumProcessors < figures->ActiveProcessors ||
        figures->MaximumProcessors > MAXUSHORT)
    {
        return STATUS_INVALID_PARAMETER;
    }
    WpSetFigures(figures);
    return STATUS_SUCCESS;
}

// PASSIVE_LEVEL, worker.
static NTSTATUS WpFail(PIRP irp)
{
    const WINEPNP_FAIL *fail = WpInput(irp, sizeof *fail);
    if (fail == NULL || fail->Passes < 0 || fail->Import[WINEPNP_IMPORT_CHARACTERS - 1] != '\0')
    {
        return STATUS_INVALID_PARAMETER;
    }
    WpSetFailedImport(fail);
    return STATUS_SUCCESS;
}

// PASSIVE_LEVEL, worker.
static NTSTATUS WpSwitch(PIRP irp)
{
    const WINEPNP_SWITCH *change = WpInput(irp, sizeof *change);
    if (change == NULL || change->Number >= WINEPNP_SWITCHES)
    {
        return STATUS_INVALID_PARAMETER;
    }
    WpSetSwitch(change);
    return STATUS_SUCCESS;
}

// PASSIVE_LEVEL, any thread: it waits for no callback.
static NTSTATUS WpState(PIRP irp, ULONG_PTR *information)
{
    WINEPNP_STATE state = {0};
    WpCountBook(&state.Interfaces, &state.Registrations);
    state.Synchronous = WpCountProcessorCallbacks();
    state.FailedImports = WpCountFailedImports();
    state.Misuses = WpCountMisuses();
    state.MemoryAsked = WpCountMemoryAsked();
    return WpAnswer(irp, &state, sizeof state, information);
}

// PASSIVE_LEVEL, any thread, likewise.
static NTSTATUS WpTold(PIRP irp, ULONG_PTR *information)
{
    WINEPNP_TOLD told;
    const ULONG64 *after = WpInput(irp, sizeof *after);
    if (after == NULL)
    {
        return STATUS_INVALID_PARAMETER;
    }
    WpNextTold(*after, &told);
    return WpAnswer(irp, &told, sizeof told, information);
}

// PASSIVE_LEVEL, worker; WINEPNP_IOCTL_STATE and WINEPNP_IOCTL_TOLD on any thread.
NTSTATUS WpCarryOut(PIRP irp, ULONG_PTR *information)
{
    const ULONG code = IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.IoControlCode;
    switch (code)
    {
    case WINEPNP_IOCTL_SYSTEM:
        return WpSystem(irp);
    case WINEPNP_IOCTL_EXISTING:
    case WINEPNP_IOCTL_ARRIVE:
    case WINEPNP_IOCTL_REMOVE:
    case WINEPNP_IOCTL_DELIVER:
        return WpNotice(irp, code, information);
    case WINEPNP_IOCTL_PROCESSOR:
        return WpProcessor(irp, information);
    case WINEPNP_IOCTL_FAIL:
        return WpFail(irp);
    case WINEPNP_IOCTL_SWITCH:
        return WpSwitch(irp);
    case WINEPNP_IOCTL_STATE:
        return WpState(irp, information);
    case WINEPNP_IOCTL_TOLD:
        return WpTold(irp, information);
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}
