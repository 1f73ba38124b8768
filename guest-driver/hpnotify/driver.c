// SPDX-License-Identifier: MIT
// hpnotify: tells a log of every processor and memory module that Windows reports as added.
#define INITGUID
#include "hpnotify.h"

DRIVER_INITIALIZE DriverEntry;
static DRIVER_UNLOAD HpnUnload;

static struct
{
    HPN_LOG log;
    HPN_REGISTRATIONS registrations;
} state;

// PASSIVE_LEVEL, system process, before the writer thread runs.
static NTSTATUS HpnWriteFirstRecords(const HPN_PARAMETERS *parameters)
{
    HPN_RECORD record = {0};
    HpnFindMemoryRoutine();
    HpnTakeSnapshot(&record);
    NTSTATUS status = HpnTakeMemory(&record.facts);
    if (!NT_SUCCESS(status))
    {
        return status;
    }
    record.kind = HpnKindLoad;
    record.detail.load.interfaces = parameters->interfaces;
    record.detail.load.synchronous = parameters->synchronous;
    record.detail.load.includeExisting = parameters->includeExisting;
    status = HpnLogWrite(&state.log, &record);
    if (!NT_SUCCESS(status))
    {
        return status;
    }
    record.kind = HpnKindBaseline;
    return HpnLogWrite(&state.log, &record);
}

// PASSIVE_LEVEL, system process; the baseline is in the log before anything is registered.
_Use_decl_annotations_ NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    HPN_PARAMETERS parameters;
    NTSTATUS status = HpnReadParameters(RegistryPath, &parameters);
    if (!NT_SUCCESS(status))
    {
        goto failed;
    }
    status = HpnLogOpen(&state.log, &parameters.logPath);
    if (!NT_SUCCESS(status))
    {
        goto failed;
    }
    status = HpnWriteFirstRecords(&parameters);
    if (!NT_SUCCESS(status))
    {
        goto closeLog;
    }
    status = HpnLogStartWriter(&state.log);
    if (!NT_SUCCESS(status))
    {
        goto closeLog;
    }
    status = HpnRegisterNotifications(&state.registrations, DriverObject, &parameters, &state.log);
    if (!NT_SUCCESS(status))
    {
        goto stopWriter;
    }
    DriverObject->DriverUnload = HpnUnload;
    return STATUS_SUCCESS;

stopWriter:
    HpnLogStopWriter(&state.log);
closeLog:
    HpnLogClose(&state.log);
failed:
    DbgPrint("hpnotify: not loaded, status 0x%08lx\n", (ULONG)status);
    return status;
}

// PASSIVE_LEVEL, system process; the reverse of DriverEntry.
_Use_decl_annotations_ static VOID NTAPI HpnUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);

    HpnUnregisterNotifications(&state.registrations);
    HpnLogStopWriter(&state.log);

    HPN_RECORD record = {0};
    record.kind = HpnKindUnload;
    HpnTakeSnapshot(&record);
    (void)HpnTakeMemory(&record.facts);     // a failure shows in the record as memory_bytes=0
    (void)HpnLogWrite(&state.log, &record); // an unload cannot fail; the log then ends without this line
    HpnLogClose(&state.log);
}
