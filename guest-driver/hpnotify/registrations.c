// SPDX-License-Identifier: MIT
// The registrations and their callbacks.
#include "hpnotify.h"

static DRIVER_NOTIFICATION_CALLBACK_ROUTINE HpnProcessorNotification;
static DRIVER_NOTIFICATION_CALLBACK_ROUTINE HpnMemoryNotification;
static PROCESSOR_CALLBACK_FUNCTION HpnProcessorChange;

// PASSIVE_LEVEL, arbitrary thread, no lock held.
static void HpnRecordNotification(const DEVICE_INTERFACE_CHANGE_NOTIFICATION *notification, HPN_LOG *log)
{
    HPN_RECORD record = {0};
    record.kind = HpnKindNotification;
    record.detail.notification.classGuid = notification->InterfaceClassGuid;
    record.detail.notification.eventGuid = notification->Event;
    const UNICODE_STRING *link = notification->SymbolicLinkName;
    if (link != NULL)
    {
        HpnCopyLink(record.detail.notification.link, link->Buffer, link->Length / sizeof *link->Buffer);
    }
    HpnTakeSnapshot(&record);
    (void)HpnTakeMemory(&record.facts); // a failure shows in the record as memory_bytes=0
    HpnLogAppend(log, &record);
}

// PASSIVE_LEVEL, arbitrary thread, no lock held; must not block.
_Use_decl_annotations_ static NTSTATUS NTAPI HpnProcessorNotification(PVOID NotificationStructure, PVOID Context)
{
    HpnRecordNotification((const DEVICE_INTERFACE_CHANGE_NOTIFICATION *)NotificationStructure, (HPN_LOG *)Context);
    return STATUS_SUCCESS;
}

// PASSIVE_LEVEL, arbitrary thread, no lock held; must not block.
_Use_decl_annotations_ static NTSTATUS NTAPI HpnMemoryNotification(PVOID NotificationStructure, PVOID Context)
{
    HpnRecordNotification((const DEVICE_INTERFACE_CHANGE_NOTIFICATION *)NotificationStructure, (HPN_LOG *)Context);
    return STATUS_SUCCESS;
}

// PASSIVE_LEVEL, arbitrary thread, no lock held; OperationStatus is left alone, so the processor is never refused.
_Use_decl_annotations_ static VOID NTAPI
HpnProcessorChange(PVOID CallbackContext, PKE_PROCESSOR_CHANGE_NOTIFY_CONTEXT ChangeContext, PNTSTATUS OperationStatus)
{
    UNREFERENCED_PARAMETER(OperationStatus);

    HPN_RECORD record = {0};
    record.kind = HpnKindProcessorChange;
    record.detail.processorChange = *ChangeContext;
    HpnTakeSnapshot(&record); // its memory is for the writer to ask for
    HpnLogAppend((HPN_LOG *)CallbackContext, &record);
}

// PASSIVE_LEVEL, DriverEntry's thread. *entry stays NULL on failure.
static NTSTATUS HpnRegisterInterface(
    PDRIVER_OBJECT driverObject, const GUID *classGuid, PDRIVER_NOTIFICATION_CALLBACK_ROUTINE callback,
    BOOLEAN includeExisting, HPN_LOG *log, PVOID *entry)
{
    PVOID registered = NULL;
    // With flags 0 what exists already is in the baseline alone; else the callback is called for it before this
    // routine returns, for an interface that arrives meanwhile perhaps twice.
    NTSTATUS status = IoRegisterPlugPlayNotification(
        EventCategoryDeviceInterfaceChange,
        includeExisting ? PNPNOTIFY_DEVICE_INTERFACE_INCLUDE_EXISTING_INTERFACES : 0, (PVOID)classGuid, driverObject,
        callback, log, &registered);
    *entry = NT_SUCCESS(status) ? registered : NULL;
    return status;
}

// PASSIVE_LEVEL, DriverEntry's thread. A processor's synchronous callbacks come before its arrival, so that
// registration is made first: an addition in between is then seen at least as an arrival.
_Use_decl_annotations_ NTSTATUS HpnRegisterNotifications(
    HPN_REGISTRATIONS *registrations, PDRIVER_OBJECT driverObject, const HPN_PARAMETERS *parameters, HPN_LOG *log)
{
    NTSTATUS status = STATUS_SUCCESS;
    const BOOLEAN existing = parameters->includeExisting != 0;
    *registrations = (HPN_REGISTRATIONS){0};
    if (parameters->synchronous != 0)
    {
        registrations->processorChange = KeRegisterProcessorChangeCallback(HpnProcessorChange, log, 0);
        if (registrations->processorChange == NULL)
        {
            status = STATUS_INSUFFICIENT_RESOURCES; // the routine tells no more than NULL
            goto failed;
        }
    }
    if ((parameters->interfaces & HPN_INTERFACE_PROCESSOR) != 0)
    {
        status = HpnRegisterInterface(
            driverObject, &GUID_DEVICE_PROCESSOR, HpnProcessorNotification, existing, log, &registrations->processor);
        if (!NT_SUCCESS(status))
        {
            goto failed;
        }
    }
    if ((parameters->interfaces & HPN_INTERFACE_MEMORY) != 0)
    {
        status = HpnRegisterInterface(
            driverObject, &GUID_DEVICE_MEMORY, HpnMemoryNotification, existing, log, &registrations->memory);
        if (!NT_SUCCESS(status))
        {
            goto failed;
        }
    }
    return STATUS_SUCCESS;

failed:
    HpnUnregisterNotifications(registrations);
    return status;
}

// PASSIVE_LEVEL; on return no callback runs and none will.
_Use_decl_annotations_ void HpnUnregisterNotifications(HPN_REGISTRATIONS *registrations)
{
    if (registrations->memory != NULL)
    {
        // Fails only for an entry that is not registered; there is nothing else an unload could do.
        (void)IoUnregisterPlugPlayNotificationEx(registrations->memory);
    }
    if (registrations->processor != NULL)
    {
        (void)IoUnregisterPlugPlayNotificationEx(registrations->processor); // as above
    }
    if (registrations->processorChange != NULL)
    {
        KeDeregisterProcessorChangeCallback(registrations->processorChange);
    }
}
