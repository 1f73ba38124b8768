// SPDX-License-Identifier: MIT
// The parts of winepnp.sys and what each offers the others.
#pragma once

#include <ntddk.h>
#include "winepnp_ioctl.h"

static const ULONG WINEPNP_POOL_TAG = 0x506E7057; // "WpnP" in memory

// ntdll.c: what Wine's user-mode loader has to do for its drivers.
typedef struct _WP_NTDLL
{
    NTSTATUS(NTAPI *LdrAddRefDll)(ULONG flags, PVOID module);
    NTSTATUS(NTAPI *LdrUnloadDll)(PVOID module);
    NTSTATUS(NTAPI *NtProtectVirtualMemory)
    (HANDLE process, PVOID *address, PSIZE_T size, ULONG protection, PULONG previous);
    int(__cdecl *WineDbgOutput)(PCSTR text); // NULL: this Wine has none
} WP_NTDLL;

extern WP_NTDLL WpNtdll;
NTSTATUS WpInitializeNtdll(PDRIVER_OBJECT driverObject);

// notify.c: a lock under which callbacks run, one at a time. Recursive: a callback may register another. As on Windows
// each registration for notifications has one of its own, so that different ones run at the same time.
typedef struct _WP_CALLBACK_LOCK
{
    KEVENT Free;
    HANDLE volatile Owner; // thread id
    ULONG Depth;           // the owner's
} WP_CALLBACK_LOCK;

VOID WpInitializeLock(WP_CALLBACK_LOCK *lock);
VOID WpEnterCallback(WP_CALLBACK_LOCK *lock);
VOID WpLeaveCallback(WP_CALLBACK_LOCK *lock);

// registrations.c: what a driver registers, and calling it.
typedef struct _WP_REGISTRATION
{
    LIST_ENTRY Links;
    ULONG64 Number; // place in the order of registrations and interfaces
    LONG References;
    BOOLEAN volatile Removed; // set before its lock is taken for the last time: whoever holds the lock later calls no
                              // more
    WP_CALLBACK_LOCK Lock;
    IO_NOTIFICATION_EVENT_CATEGORY Category;
    GUID ClassGuid;
    PDRIVER_OBJECT DriverObject;
    PDRIVER_NOTIFICATION_CALLBACK_ROUTINE Callback;
    PVOID Context;
} WP_REGISTRATION;

NTSTATUS WpCreateRegistration(
    IO_NOTIFICATION_EVENT_CATEGORY category, const GUID *classGuid, PDRIVER_OBJECT driverObject,
    PDRIVER_NOTIFICATION_CALLBACK_ROUTINE callback, PVOID context, WP_REGISTRATION **registration);
VOID WpReferenceRegistration(WP_REGISTRATION *registration);
VOID WpReleaseRegistration(WP_REGISTRATION *registration);
VOID WpCallRegistration(WP_REGISTRATION *registration, const WINEPNP_NOTICE *notice, WINEPNP_CALLED *called);

// book.c: device interfaces and registrations, numbered in one order.
VOID WpInitializeBook(VOID);
NTSTATUS WpInsertInterface(const WINEPNP_NOTICE *notice, ULONG64 *number);
NTSTATUS WpRemoveInterface(WINEPNP_NOTICE *notice);
ULONG64 WpNextInterface(const GUID *classGuid, ULONG64 after, ULONG64 before, WINEPNP_NOTICE *notice); // 0: no more
VOID WpInsertRegistration(WP_REGISTRATION *registration);
BOOLEAN WpRemoveRegistration(PVOID handle);
WP_REGISTRATION *WpNextRegistration(const GUID *classGuid, ULONG64 after, ULONG64 before); // NULL: no more
VOID WpCountBook(ULONG *interfaces, ULONG *registrations);

// plugplay.c: notifications.
NTSTATUS WpExisting(const WINEPNP_NOTICE *notice);
NTSTATUS WpArrive(const WINEPNP_NOTICE *notice, WINEPNP_CALLED *called);
NTSTATUS WpRemove(const WINEPNP_NOTICE *notice, WINEPNP_CALLED *called);
VOID WpDeliver(const WINEPNP_NOTICE *notice, WINEPNP_CALLED *called);

// told.c: the latest notifications, for programs.
VOID WpInitializeTold(VOID);
VOID WpKeepTold(const WINEPNP_NOTICE *notice);
VOID WpNextTold(ULONG64 after, WINEPNP_TOLD *told);

// processors.c: synchronous processor callbacks.
VOID WpInitializeProcessors(VOID);
VOID WpNotifyProcessor(const WINEPNP_PROCESSOR *change, WINEPNP_CALLED *called);
ULONG WpCountProcessorCallbacks(VOID);
BOOLEAN WpIsInProcessorCallback(VOID);

// figures.c: how many processors and how much memory drivers are told of.
VOID WpInitializeFigures(VOID);
VOID WpSetFigures(const WINEPNP_SYSTEM *figures);
ULONG WpActiveProcessors(VOID);
ULONG WpCountMemoryAsked(VOID);

// switches.c: in which way this Windows is not like another.
VOID WpSetSwitch(const WINEPNP_SWITCH *change);
BOOLEAN WpIsOn(ULONG number);

// misuse.c: what a driver has done wrong.
VOID WpTellMisuse(PCSTR misuse);
ULONG WpCountMisuses(VOID);

// imports.c: the import tables of the images loaded after us.
NTSTATUS WpWatchImages(VOID);
VOID WpUnwatchImages(VOID);
VOID WpSetFailedImport(const WINEPNP_FAIL *fail);
ULONG WpCountFailedImports(VOID);

// routines.c: our routine of that kernel API name, or NULL.
PVOID WpFindRoutine(PCSTR name);

// requests.c: carry out one device control request; returns its status, *information is the answer's size.
NTSTATUS WpCarryOut(PIRP irp, ULONG_PTR *information);

// The kernel API that Wine lacks, as drivers call it.
NTSTATUS NTAPI WpIoRegisterPlugPlayNotification(
    IO_NOTIFICATION_EVENT_CATEGORY category, ULONG flags, PVOID data, PDRIVER_OBJECT driverObject,
    PDRIVER_NOTIFICATION_CALLBACK_ROUTINE callback, PVOID context, PVOID *entry);
NTSTATUS NTAPI WpIoUnregisterPlugPlayNotification(PVOID entry);
NTSTATUS NTAPI WpIoUnregisterPlugPlayNotificationEx(PVOID entry);
PVOID NTAPI WpKeRegisterProcessorChangeCallback(PPROCESSOR_CALLBACK_FUNCTION callback, PVOID context, ULONG flags);
VOID NTAPI WpKeDeregisterProcessorChangeCallback(PVOID handle);
ULONG NTAPI WpKeQueryActiveProcessorCount(PKAFFINITY activeProcessors);
ULONG NTAPI WpKeQueryActiveProcessorCountEx(USHORT group);
KAFFINITY NTAPI WpKeQueryActiveProcessors(VOID);
USHORT NTAPI WpKeQueryActiveGroupCount(VOID);
ULONG NTAPI WpKeQueryMaximumProcessorCount(VOID);
ULONG NTAPI WpKeQueryMaximumProcessorCountEx(USHORT group);
USHORT NTAPI WpKeQueryMaximumGroupCount(VOID);
PPHYSICAL_MEMORY_RANGE NTAPI WpMmGetPhysicalMemoryRanges(VOID);
PPHYSICAL_MEMORY_RANGE NTAPI WpMmGetPhysicalMemoryRangesEx2(PVOID partition, ULONG flags);
