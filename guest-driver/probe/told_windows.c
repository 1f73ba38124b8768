// SPDX-License-Identifier: MIT
// On Windows 8 and Server 2012 and later programs are told by CM_Register_Notification, without window or service:
// https://learn.microsoft.com/windows/win32/api/cfgmgr32/nf-cfgmgr32-cm_register_notification
#include "told.h"

#include <string.h>

#include "routine.h"

// What <cfgmgr32.h> declares; the one of older mingw-w64 does not.
typedef struct NOTIFY_FILTER
{
    DWORD cbSize;
    DWORD Flags;
    DWORD FilterType;
    DWORD Reserved;
    union
    {
        GUID ClassGuid;
        WCHAR InstanceId[200]; // MAX_DEVICE_ID_LEN: the whole size is checked
    } u;
} NOTIFY_FILTER;

_Static_assert(sizeof(NOTIFY_FILTER) == 416, "Windows takes a filter of no other size");

typedef struct NOTIFY_EVENT_DATA
{
    DWORD FilterType;
    DWORD Reserved;
    GUID ClassGuid;
    WCHAR SymbolicLink[];
} NOTIFY_EVENT_DATA;

enum
{
    FILTER_TYPE_DEVICEINTERFACE = 0,
    ACTION_DEVICEINTERFACEARRIVAL = 0,
    ACTION_DEVICEINTERFACEREMOVAL = 1,
};

typedef DWORD(CALLBACK *NOTIFY_CALLBACK)(
    PVOID notification, PVOID context, DWORD action, NOTIFY_EVENT_DATA *data, DWORD dataSize);
typedef DWORD(WINAPI *REGISTER_NOTIFICATION)(
    const NOTIFY_FILTER *filter, PVOID context, NOTIFY_CALLBACK callback, PVOID *notification);

static CRITICAL_SECTION g_lock;
static TOLD g_told[MOST_TOLD];
static uint64_t g_last;  // number of the latest
static uint64_t g_taken; // and of the latest that was taken

// Any thread. Says nothing to anybody: what it returns is not heard for an interface.
static DWORD CALLBACK
OnNotification(PVOID notification, PVOID context, DWORD action, NOTIFY_EVENT_DATA *data, DWORD dataSize)
{
    LARGE_INTEGER counter;
    (void)notification;
    (void)dataSize;
    QueryPerformanceCounter(&counter);
    if (action != ACTION_DEVICEINTERFACEARRIVAL && action != ACTION_DEVICEINTERFACEREMOVAL)
    {
        return ERROR_SUCCESS;
    }
    EnterCriticalSection(&g_lock);
    g_last += 1;
    TOLD *told = &g_told[g_last % MOST_TOLD];
    told->number = g_last;
    told->interfaceClass = (INTERFACE_CLASS)(uintptr_t)context;
    told->arrival = action == ACTION_DEVICEINTERFACEARRIVAL;
    told->qpc = counter.QuadPart;
    if (WideCharToMultiByte(CP_UTF8, 0, data->SymbolicLink, -1, told->link, sizeof told->link, NULL, NULL) == 0)
    {
        told->link[0] = '\0';
    }
    LeaveCriticalSection(&g_lock);
    return ERROR_SUCCESS;
}

bool ListenOnWindows(void)
{
    REGISTER_NOTIFICATION registerNotification =
        (REGISTER_NOTIFICATION)FindRoutine(L"cfgmgr32.dll", "CM_Register_Notification");
    if (registerNotification == NULL)
    {
        return false;
    }
    InitializeCriticalSection(&g_lock);
    for (uintptr_t index = 0; index < CLASS_COUNT; index++)
    {
        NOTIFY_FILTER filter = {.cbSize = sizeof filter, .FilterType = FILTER_TYPE_DEVICEINTERFACE};
        PVOID notification = NULL;
        filter.u.ClassGuid = *InterfaceClassGuid((INTERFACE_CLASS)index);
        // It lives as long as this process.
        if (registerNotification(&filter, (PVOID)index, OnNotification, &notification) != ERROR_SUCCESS)
        {
            return false;
        }
    }
    return true;
}

bool TakeToldOnWindows(TOLD *told)
{
    EnterCriticalSection(&g_lock);
    const bool found = g_taken < g_last;
    if (found)
    {
        const uint64_t oldest = g_last < MOST_TOLD ? 1 : g_last - MOST_TOLD + 1;
        g_taken = g_taken + 1 < oldest ? oldest : g_taken + 1;
        *told = g_told[g_taken % MOST_TOLD];
    }
    LeaveCriticalSection(&g_lock);
    return found;
}
