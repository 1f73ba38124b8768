// SPDX-License-Identifier: MIT
// What drivers were told last of interfaces that came and went, for programs: Windows tells those too.
#include "winepnp.h"

enum
{
    WP_TOLD_KEPT = 1024
};

static struct
{
    FAST_MUTEX Lock;
    ULONG64 Last; // number of the latest, 0: none yet
    WINEPNP_TOLD Kept[WP_TOLD_KEPT];
} g_told;

// PASSIVE_LEVEL, DriverEntry.
VOID WpInitializeTold(VOID)
{
    ExInitializeFastMutex(&g_told.Lock);
}

// PASSIVE_LEVEL, worker.
VOID WpKeepTold(const WINEPNP_NOTICE *notice)
{
    ExAcquireFastMutex(&g_told.Lock);
    g_told.Last += 1;
    WINEPNP_TOLD *told = &g_told.Kept[g_told.Last % WP_TOLD_KEPT];
    told->Number = g_told.Last;
    told->Qpc = KeQueryPerformanceCounter(NULL).QuadPart;
    told->Notice = *notice;
    ExReleaseFastMutex(&g_told.Lock);
}

// PASSIVE_LEVEL, any thread. The first after that number which is still kept; its number is 0 if there is none.
VOID WpNextTold(ULONG64 after, WINEPNP_TOLD *told)
{
    RtlZeroMemory(told, sizeof *told);
    ExAcquireFastMutex(&g_told.Lock);
    const ULONG64 last = g_told.Last;
    const ULONG64 oldest = last < WP_TOLD_KEPT ? 1 : last - WP_TOLD_KEPT + 1;
    if (after < last)
    {
        *told = g_told.Kept[(after + 1 < oldest ? oldest : after + 1) % WP_TOLD_KEPT];
    }
    told->Last = last;
    ExReleaseFastMutex(&g_told.Lock);
}
