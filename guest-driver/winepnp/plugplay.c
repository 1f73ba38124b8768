// SPDX-License-Identifier: MIT
// IoRegisterPlugPlayNotification, its counterparts, and the delivery of notifications.
#include "winepnp.h"
#include <wdmguid.h>

// PASSIVE_LEVEL, any thread. Calls, in order of registration, those whose number lies between.
static VOID WpTell(const WINEPNP_NOTICE *notice, ULONG64 before, WINEPNP_CALLED *called)
{
    ULONG64 after = 0;
    for (;;)
    {
        WP_REGISTRATION *registration = WpNextRegistration(&notice->ClassGuid, after, before);
        if (registration == NULL)
        {
            return;
        }
        after = registration->Number;
        WpCallRegistration(registration, notice, called);
        WpReleaseRegistration(registration);
    }
}

// PASSIVE_LEVEL, worker. The interface is there, nobody is told; saying so again is no error.
NTSTATUS WpExisting(const WINEPNP_NOTICE *notice)
{
    ULONG64 number = 0;
    const NTSTATUS status = WpInsertInterface(notice, &number);
    return status == STATUS_OBJECT_NAME_COLLISION ? STATUS_SUCCESS : status;
}

// PASSIVE_LEVEL, worker.
NTSTATUS WpArrive(const WINEPNP_NOTICE *notice, WINEPNP_CALLED *called)
{
    ULONG64 number = 0;
    const NTSTATUS status = WpInsertInterface(notice, &number);
    if (NT_SUCCESS(status))
    {
        WINEPNP_NOTICE arrival = *notice;
        arrival.EventGuid = GUID_DEVICE_INTERFACE_ARRIVAL;
        WpKeepTold(&arrival);
        WpTell(&arrival, number, called);
    }
    return status;
}

// PASSIVE_LEVEL, worker.
NTSTATUS WpRemove(const WINEPNP_NOTICE *notice, WINEPNP_CALLED *called)
{
    WINEPNP_NOTICE removal = *notice;
    const NTSTATUS status = WpRemoveInterface(&removal);
    if (NT_SUCCESS(status))
    {
        removal.EventGuid = GUID_DEVICE_INTERFACE_REMOVAL;
        WpKeepTold(&removal);
        WpTell(&removal, MAXULONG64, called);
    }
    return status;
}

// PASSIVE_LEVEL, worker. Whatever the book says: for a test that wants a wrong notification.
VOID WpDeliver(const WINEPNP_NOTICE *notice, WINEPNP_CALLED *called)
{
    WpTell(notice, MAXULONG64, called);
}

// PASSIVE_LEVEL, the registering thread.
static VOID WpTellExisting(WP_REGISTRATION *registration)
{
    WINEPNP_NOTICE notice;
    WINEPNP_CALLED called = {0, STATUS_SUCCESS};
    for (ULONG64 number = 0;;)
    {
        number = WpNextInterface(&registration->ClassGuid, number, registration->Number, &notice);
        if (number == 0)
        {
            return;
        }
        WpCallRegistration(registration, &notice, &called);
        if (WpIsOn(WINEPNP_SWITCH_TWICE))
        {
            WpCallRegistration(registration, &notice, &called);
        }
    }
}

// PASSIVE_LEVEL, any thread. Hardware profiles never change here and targets never go, so those two stay silent.
NTSTATUS NTAPI WpIoRegisterPlugPlayNotification(
    IO_NOTIFICATION_EVENT_CATEGORY category, ULONG flags, PVOID data, PDRIVER_OBJECT driverObject,
    PDRIVER_NOTIFICATION_CALLBACK_ROUTINE callback, PVOID context, PVOID *entry)
{
    static const GUID noClass;
    const BOOLEAN ofInterfaces = category == EventCategoryDeviceInterfaceChange;
    if (driverObject == NULL || callback == NULL || entry == NULL ||
        (category != EventCategoryHardwareProfileChange && data == NULL) ||
        (!ofInterfaces && category != EventCategoryHardwareProfileChange &&
         category != EventCategoryTargetDeviceChange))
    {
        return STATUS_INVALID_PARAMETER;
    }
    *entry = NULL;
    WP_REGISTRATION *registration = NULL;
    const NTSTATUS status = WpCreateRegistration(
        category, ofInterfaces ? (const GUID *)data : &noClass, driverObject, callback, context, &registration);
    if (!NT_SUCCESS(status))
    {
        return status;
    }
    WpReferenceRegistration(registration); // for this routine: the callback may well unregister
    WpInsertRegistration(registration);
    if (ofInterfaces && (flags & PNPNOTIFY_DEVICE_INTERFACE_INCLUDE_EXISTING_INTERFACES) != 0)
    {
        WpTellExisting(registration);
    }
    *entry = registration;
    WpReleaseRegistration(registration);
    return STATUS_SUCCESS;
}

// PASSIVE_LEVEL, any thread. As documented, a callback in flight may still be running when this returns.
NTSTATUS NTAPI WpIoUnregisterPlugPlayNotification(PVOID entry)
{
    if (!WpRemoveRegistration(entry))
    {
        WpTellMisuse("IoUnregisterPlugPlayNotification of an entry that is not registered");
        return STATUS_INVALID_PARAMETER;
    }
    WpReleaseRegistration(entry);
    return STATUS_SUCCESS;
}

// PASSIVE_LEVEL, any thread, also from inside the callback: the lock is recursive. No callback runs after this returns.
NTSTATUS NTAPI WpIoUnregisterPlugPlayNotificationEx(PVOID entry)
{
    if (!WpRemoveRegistration(entry))
    {
        WpTellMisuse("IoUnregisterPlugPlayNotificationEx of an entry that is not registered");
        return STATUS_INVALID_PARAMETER;
    }
    WP_REGISTRATION *registration = entry;
    WpEnterCallback(&registration->Lock);
    WpLeaveCallback(&registration->Lock);
    WpReleaseRegistration(registration);
    return STATUS_SUCCESS;
}
