// SPDX-License-Identifier: MIT
// KeRegisterProcessorChangeCallback: the synchronous notification, which comes before a processor's PnP arrival.
#include "winepnp.h"

typedef struct _WP_PROCESSOR_CALLBACK
{
    LIST_ENTRY Links;
    PPROCESSOR_CALLBACK_FUNCTION Callback;
    PVOID Context;
    BOOLEAN Asked; // whether it was, about the processor that is about to be added
} WP_PROCESSOR_CALLBACK;

static WP_CALLBACK_LOCK g_processorLock; // one for all: a processor is added when all have been asked
static LIST_ENTRY g_processorCallbacks;  // in order of registration, guarded by that lock
static volatile LONG g_processorCallbackCount;

static const ULONG WP_PROCESSORS_PER_GROUP = 64;

// PASSIVE_LEVEL, DriverEntry.
VOID WpInitializeProcessors(VOID)
{
    WpInitializeLock(&g_processorLock);
    InitializeListHead(&g_processorCallbacks);
}

// PASSIVE_LEVEL, any thread, callback lock held.
static NTSTATUS WpCallProcessor(const WP_PROCESSOR_CALLBACK *registered, ULONG state, ULONG number, NTSTATUS status)
{
    KE_PROCESSOR_CHANGE_NOTIFY_CONTEXT change;
    RtlZeroMemory(&change, sizeof change);
    change.State = (KE_PROCESSOR_CHANGE_NOTIFY_STATE)state;
    change.NtNumber = number;
    change.Status = status;
    change.ProcNumber.Group = (USHORT)(number / WP_PROCESSORS_PER_GROUP);
    change.ProcNumber.Number = (UCHAR)(number % WP_PROCESSORS_PER_GROUP);
    NTSTATUS operationStatus = STATUS_SUCCESS;
    registered->Callback(registered->Context, &change, &operationStatus);
    return operationStatus;
}

// PASSIVE_LEVEL, worker, callback lock held. Tells those that were asked, but not the one that refused, which may have
// deregistered itself since: it is only compared.
static void WpUndoStarts(const WP_PROCESSOR_CALLBACK *refused, ULONG number, NTSTATUS status, WINEPNP_CALLED *called)
{
    for (PLIST_ENTRY links = g_processorCallbacks.Flink; links != &g_processorCallbacks;)
    {
        const WP_PROCESSOR_CALLBACK *registered = CONTAINING_RECORD(links, WP_PROCESSOR_CALLBACK, Links);
        links = links->Flink; // first, as the callback may deregister itself
        if (registered->Asked && registered != refused)
        {
            (void)WpCallProcessor(registered, KeProcessorAddFailureNotify, number, status);
            called->Callbacks += 1;
        }
    }
}

// PASSIVE_LEVEL, worker. Nobody is asked after one that refuses, and those asked before it are told of the failure.
VOID WpNotifyProcessor(const WINEPNP_PROCESSOR *change, WINEPNP_CALLED *called)
{
    WpEnterCallback(&g_processorLock);
    for (PLIST_ENTRY links = g_processorCallbacks.Flink; links != &g_processorCallbacks; links = links->Flink)
    {
        CONTAINING_RECORD(links, WP_PROCESSOR_CALLBACK, Links)->Asked = FALSE;
    }
    for (PLIST_ENTRY links = g_processorCallbacks.Flink; links != &g_processorCallbacks;)
    {
        WP_PROCESSOR_CALLBACK *registered = CONTAINING_RECORD(links, WP_PROCESSOR_CALLBACK, Links);
        links = links->Flink; // as above
        registered->Asked = TRUE;
        const NTSTATUS status = WpCallProcessor(registered, change->State, change->NtNumber, change->Status);
        called->Callbacks += 1;
        if (!NT_SUCCESS(status) && change->State == KeProcessorAddStartNotify)
        {
            called->FirstFailure = status;
            WpUndoStarts(registered, change->NtNumber, status, called);
            break;
        }
    }
    WpLeaveCallback(&g_processorLock);
}

// PASSIVE_LEVEL, the registering thread, callback lock held: first every AddStart, then every AddComplete; after a
// refusal AddFailure for those that it had accepted.
static NTSTATUS WpReplayActive(const WP_PROCESSOR_CALLBACK *registered)
{
    const ULONG active = WpActiveProcessors();
    NTSTATUS status = STATUS_SUCCESS;
    ULONG accepted = 0;
    while (accepted < active)
    {
        status = WpCallProcessor(registered, KeProcessorAddStartNotify, accepted, STATUS_SUCCESS);
        if (!NT_SUCCESS(status))
        {
            break;
        }
        accepted += 1;
    }
    const ULONG state = NT_SUCCESS(status) ? KeProcessorAddCompleteNotify : KeProcessorAddFailureNotify;
    for (ULONG number = 0; number < accepted; number++)
    {
        (void)WpCallProcessor(registered, state, number, status);
    }
    return status;
}

// PASSIVE_LEVEL, any thread.
PVOID NTAPI WpKeRegisterProcessorChangeCallback(PPROCESSOR_CALLBACK_FUNCTION callback, PVOID context, ULONG flags)
{
    if (callback == NULL || (flags & ~(ULONG)KE_PROCESSOR_CHANGE_ADD_EXISTING) != 0)
    {
        return NULL;
    }
    WP_PROCESSOR_CALLBACK *registered = ExAllocatePoolWithTag(NonPagedPool, sizeof *registered, WINEPNP_POOL_TAG);
    if (registered == NULL)
    {
        return NULL;
    }
    registered->Callback = callback;
    registered->Context = context;
    WpEnterCallback(&g_processorLock);
    if ((flags & KE_PROCESSOR_CHANGE_ADD_EXISTING) != 0 && !NT_SUCCESS(WpReplayActive(registered)))
    {
        WpLeaveCallback(&g_processorLock);
        ExFreePoolWithTag(registered, WINEPNP_POOL_TAG);
        return NULL;
    }
    InsertTailList(&g_processorCallbacks, &registered->Links);
    (void)InterlockedIncrement(&g_processorCallbackCount);
    WpLeaveCallback(&g_processorLock);
    return registered;
}

// PASSIVE_LEVEL, any thread. No callback runs after this returns.
VOID NTAPI WpKeDeregisterProcessorChangeCallback(PVOID handle)
{
    BOOLEAN found = FALSE;
    WpEnterCallback(&g_processorLock);
    for (PLIST_ENTRY links = g_processorCallbacks.Flink; links != &g_processorCallbacks; links = links->Flink)
    {
        WP_PROCESSOR_CALLBACK *registered = CONTAINING_RECORD(links, WP_PROCESSOR_CALLBACK, Links);
        if (registered == handle)
        {
            RemoveEntryList(&registered->Links);
            (void)InterlockedDecrement(&g_processorCallbackCount);
            ExFreePoolWithTag(registered, WINEPNP_POOL_TAG);
            found = TRUE;
            break;
        }
    }
    WpLeaveCallback(&g_processorLock);
    if (!found)
    {
        WpTellMisuse("KeDeregisterProcessorChangeCallback of a handle that is not registered");
    }
}

// Any IRQL, any thread.
ULONG WpCountProcessorCallbacks(VOID)
{
    return (ULONG)g_processorCallbackCount;
}

// PASSIVE_LEVEL, any thread.
BOOLEAN WpIsInProcessorCallback(VOID)
{
    return g_processorLock.Owner == PsGetCurrentThreadId();
}
