// SPDX-License-Identifier: MIT
// The book of device interfaces and of registrations for them.
//
// Both share one numbering: a registration hears of the arrivals that come after it, and with INCLUDE_EXISTING of the
// interfaces that came before it, so of none twice and of none never.
#include "winepnp.h"
#include <wdmguid.h>

typedef struct _WP_INTERFACE
{
    LIST_ENTRY Links;
    ULONG64 Number;
    WINEPNP_NOTICE Notice; // its arrival
} WP_INTERFACE;

static struct
{
    FAST_MUTEX Lock; // never held over a callback
    LIST_ENTRY Interfaces;
    LIST_ENTRY Registrations;
    ULONG64 LastNumber;
    ULONG InterfaceCount;
    ULONG RegistrationCount;
} g_book;

// PASSIVE_LEVEL, DriverEntry.
VOID WpInitializeBook(VOID)
{
    ExInitializeFastMutex(&g_book.Lock);
    InitializeListHead(&g_book.Interfaces);
    InitializeListHead(&g_book.Registrations);
}

// PASSIVE_LEVEL.
static BOOLEAN WpIsSameLink(const WINEPNP_NOTICE *one, const WINEPNP_NOTICE *other)
{
    if (one->LinkCharacters != other->LinkCharacters)
    {
        return FALSE;
    }
    for (ULONG index = 0; index < one->LinkCharacters; index++)
    {
        if (RtlUpcaseUnicodeChar(one->Link[index]) != RtlUpcaseUnicodeChar(other->Link[index]))
        {
            return FALSE;
        }
    }
    return TRUE;
}

// PASSIVE_LEVEL, lock held. Names of objects have no case.
static WP_INTERFACE *WpFindInterface(const WINEPNP_NOTICE *notice)
{
    for (PLIST_ENTRY links = g_book.Interfaces.Flink; links != &g_book.Interfaces; links = links->Flink)
    {
        WP_INTERFACE *found = CONTAINING_RECORD(links, WP_INTERFACE, Links);
        if (IsEqualGUID(&found->Notice.ClassGuid, &notice->ClassGuid) && WpIsSameLink(&found->Notice, notice))
        {
            return found;
        }
    }
    return NULL;
}

// PASSIVE_LEVEL, worker.
NTSTATUS WpInsertInterface(const WINEPNP_NOTICE *notice, ULONG64 *number)
{
    WP_INTERFACE *found = ExAllocatePoolWithTag(NonPagedPool, sizeof *found, WINEPNP_POOL_TAG);
    if (found == NULL)
    {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    found->Notice = *notice;
    found->Notice.EventGuid = GUID_DEVICE_INTERFACE_ARRIVAL;
    ExAcquireFastMutex(&g_book.Lock);
    const BOOLEAN known = WpFindInterface(notice) != NULL;
    if (!known)
    {
        found->Number = ++g_book.LastNumber;
        *number = found->Number;
        InsertTailList(&g_book.Interfaces, &found->Links);
        g_book.InterfaceCount += 1;
    }
    ExReleaseFastMutex(&g_book.Lock);
    if (known)
    {
        ExFreePoolWithTag(found, WINEPNP_POOL_TAG);
        return STATUS_OBJECT_NAME_COLLISION;
    }
    return STATUS_SUCCESS;
}

// PASSIVE_LEVEL, worker.
NTSTATUS WpRemoveInterface(WINEPNP_NOTICE *notice)
{
    ExAcquireFastMutex(&g_book.Lock);
    WP_INTERFACE *found = WpFindInterface(notice);
    if (found != NULL)
    {
        RemoveEntryList(&found->Links);
        g_book.InterfaceCount -= 1;
    }
    ExReleaseFastMutex(&g_book.Lock);
    if (found == NULL)
    {
        return STATUS_OBJECT_NAME_NOT_FOUND;
    }
    *notice = found->Notice; // its link as it arrived
    ExFreePoolWithTag(found, WINEPNP_POOL_TAG);
    return STATUS_SUCCESS;
}

// PASSIVE_LEVEL, any thread.
ULONG64 WpNextInterface(const GUID *classGuid, ULONG64 after, ULONG64 before, WINEPNP_NOTICE *notice)
{
    ULONG64 number = 0;
    ExAcquireFastMutex(&g_book.Lock);
    for (PLIST_ENTRY links = g_book.Interfaces.Flink; links != &g_book.Interfaces; links = links->Flink)
    {
        const WP_INTERFACE *found = CONTAINING_RECORD(links, WP_INTERFACE, Links);
        if (found->Number > after && found->Number < before && IsEqualGUID(&found->Notice.ClassGuid, classGuid))
        {
            number = found->Number;
            *notice = found->Notice;
            break;
        }
    }
    ExReleaseFastMutex(&g_book.Lock);
    return number;
}

// PASSIVE_LEVEL, any thread. The book takes over the caller's reference.
VOID WpInsertRegistration(WP_REGISTRATION *registration)
{
    ExAcquireFastMutex(&g_book.Lock);
    registration->Number = ++g_book.LastNumber;
    InsertTailList(&g_book.Registrations, &registration->Links);
    g_book.RegistrationCount += 1;
    ExReleaseFastMutex(&g_book.Lock);
}

// PASSIVE_LEVEL, any thread. The caller takes over the book's reference, if the handle is one.
BOOLEAN WpRemoveRegistration(PVOID handle)
{
    BOOLEAN found = FALSE;
    ExAcquireFastMutex(&g_book.Lock);
    for (PLIST_ENTRY links = g_book.Registrations.Flink; links != &g_book.Registrations && !found; links = links->Flink)
    {
        found = CONTAINING_RECORD(links, WP_REGISTRATION, Links) == handle;
    }
    if (found)
    {
        RemoveEntryList(&((WP_REGISTRATION *)handle)->Links);
        ((WP_REGISTRATION *)handle)->Removed = TRUE;
        g_book.RegistrationCount -= 1;
    }
    ExReleaseFastMutex(&g_book.Lock);
    return found;
}

// PASSIVE_LEVEL, any thread. The caller gets a reference.
WP_REGISTRATION *WpNextRegistration(const GUID *classGuid, ULONG64 after, ULONG64 before)
{
    WP_REGISTRATION *found = NULL;
    ExAcquireFastMutex(&g_book.Lock);
    for (PLIST_ENTRY links = g_book.Registrations.Flink; links != &g_book.Registrations; links = links->Flink)
    {
        WP_REGISTRATION *registration = CONTAINING_RECORD(links, WP_REGISTRATION, Links);
        if (registration->Number > after && registration->Number < before &&
            registration->Category == EventCategoryDeviceInterfaceChange &&
            IsEqualGUID(&registration->ClassGuid, classGuid))
        {
            WpReferenceRegistration(registration);
            found = registration;
            break;
        }
    }
    ExReleaseFastMutex(&g_book.Lock);
    return found;
}

// PASSIVE_LEVEL, any thread.
VOID WpCountBook(ULONG *interfaces, ULONG *registrations)
{
    ExAcquireFastMutex(&g_book.Lock);
    *interfaces = g_book.InterfaceCount;
    *registrations = g_book.RegistrationCount;
    ExReleaseFastMutex(&g_book.Lock);
}
