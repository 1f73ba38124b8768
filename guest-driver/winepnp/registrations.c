// SPDX-License-Identifier: MIT
// One driver's registration for PnP notifications: what it keeps alive, and calling it.
#include "winepnp.h"

// What a callback gets; its memory is not the driver's to keep.
typedef struct _WP_DELIVERY
{
    DEVICE_INTERFACE_CHANGE_NOTIFICATION Notification;
    UNICODE_STRING Link;
    WCHAR Characters[WINEPNP_LINK_CHARACTERS];
} WP_DELIVERY;

static const UCHAR WP_POISON = 0xDD;

// PASSIVE_LEVEL, any thread. The caller owns the one reference. Wine unmaps an image after DriverUnload whatever
// references its driver object has, Windows keeps it: hence the reference on the module too.
NTSTATUS WpCreateRegistration(
    IO_NOTIFICATION_EVENT_CATEGORY category, const GUID *classGuid, PDRIVER_OBJECT driverObject,
    PDRIVER_NOTIFICATION_CALLBACK_ROUTINE callback, PVOID context, WP_REGISTRATION **registration)
{
    WP_REGISTRATION *created = ExAllocatePoolWithTag(NonPagedPool, sizeof *created, WINEPNP_POOL_TAG);
    if (created == NULL)
    {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    const NTSTATUS status = WpNtdll.LdrAddRefDll(0, driverObject->DriverStart);
    if (!NT_SUCCESS(status))
    {
        ExFreePoolWithTag(created, WINEPNP_POOL_TAG);
        return status;
    }
    ObReferenceObject(driverObject);
    created->Number = 0;
    created->References = 1;
    created->Removed = FALSE;
    WpInitializeLock(&created->Lock);
    created->Category = category;
    created->ClassGuid = *classGuid;
    created->DriverObject = driverObject;
    created->Callback = callback;
    created->Context = context;
    *registration = created;
    return STATUS_SUCCESS;
}

// PASSIVE_LEVEL, any thread.
VOID WpReferenceRegistration(WP_REGISTRATION *registration)
{
    (void)InterlockedIncrement(&registration->References);
}

// PASSIVE_LEVEL, any thread, never from inside the driver's own code when it may be the last reference.
VOID WpReleaseRegistration(WP_REGISTRATION *registration)
{
    if (InterlockedDecrement(&registration->References) != 0)
    {
        return;
    }
    PVOID image = registration->DriverObject->DriverStart;
    ObDereferenceObject(registration->DriverObject);
    ExFreePoolWithTag(registration, WINEPNP_POOL_TAG);
    (void)WpNtdll.LdrUnloadDll(image);
}

// PASSIVE_LEVEL, any thread, the registration's lock held, the caller has a reference.
static VOID WpDeliverTo(WP_REGISTRATION *registration, const WINEPNP_NOTICE *notice, WINEPNP_CALLED *called)
{
    WP_DELIVERY delivery;
    RtlFillMemory(&delivery, sizeof delivery, WP_POISON); // so that no terminator follows the link by chance
    RtlCopyMemory(delivery.Characters, notice->Link, notice->LinkCharacters * sizeof(WCHAR));
    delivery.Link.Length = (USHORT)(notice->LinkCharacters * sizeof(WCHAR));
    delivery.Link.MaximumLength = delivery.Link.Length;
    delivery.Link.Buffer = delivery.Characters;
    delivery.Notification.Version = 1;
    delivery.Notification.Size = sizeof delivery.Notification;
    delivery.Notification.Event = notice->EventGuid;
    delivery.Notification.InterfaceClassGuid = notice->ClassGuid;
    delivery.Notification.SymbolicLinkName = &delivery.Link;

    const NTSTATUS status = registration->Callback(&delivery.Notification, registration->Context);
    called->Callbacks += 1;
    if (!NT_SUCCESS(status) && called->FirstFailure == STATUS_SUCCESS)
    {
        called->FirstFailure = status;
    }
    RtlFillMemory(&delivery, sizeof delivery, WP_POISON); // a driver that kept a pointer shall notice
}

// PASSIVE_LEVEL, any thread, the caller has a reference. Who has unregistered and then held the lock is not called.
VOID WpCallRegistration(WP_REGISTRATION *registration, const WINEPNP_NOTICE *notice, WINEPNP_CALLED *called)
{
    WpEnterCallback(&registration->Lock);
    if (!registration->Removed)
    {
        WpDeliverTo(registration, notice, called);
    }
    WpLeaveCallback(&registration->Lock);
}
