// SPDX-License-Identifier: MIT
// Points the imports of every driver image loaded after us at our routines, and one of them, on demand, at a failure.
#include "winepnp.h"
#include <ntimage.h>

// What a failed import goes through. It must leave every argument alone, whatever the import's prototype is.
extern ULONG64 WpFailedImport(void);
volatile LONG64 WpFailedPasses;
volatile ULONG64 WpFailedValue;
PVOID volatile WpFailedOriginal;
__asm__(".text\n"
        ".globl WpFailedImport\n"
        "WpFailedImport:\n"
        "    lock subq $1, WpFailedPasses(%rip)\n"
        "    jns 1f\n"
        "    movq WpFailedValue(%rip), %rax\n"
        "    ret\n"
        "1:  jmp *WpFailedOriginal(%rip)\n");

static struct
{
    FAST_MUTEX Lock;
    WINEPNP_FAIL Fail; // for the next image; no name when there is none
    ULONG FailedCount;
} g_imports;

// PASSIVE_LEVEL, any thread. MSVC links import tables read-only.
static NTSTATUS WpWriteImport(ULONG_PTR *slot, PVOID routine)
{
    PVOID page = slot;
    SIZE_T size = sizeof *slot;
    ULONG previous = 0;
    const NTSTATUS status = WpNtdll.NtProtectVirtualMemory(NtCurrentProcess(), &page, &size, PAGE_READWRITE, &previous);
    if (NT_SUCCESS(status))
    {
        *slot = (ULONG_PTR)routine;
        (void)WpNtdll.NtProtectVirtualMemory(NtCurrentProcess(), &page, &size, previous, &previous);
    }
    return status;
}

// PASSIVE_LEVEL, the loading thread. What the import is when nothing fails. Wine keeps the image of a driver that
// failed to load, so the slot may still be the failure of the last time.
static PVOID WpUnfailed(PCSTR name, ULONG_PTR slot)
{
    PVOID routine = WpFindRoutine(name);
    if (routine == NULL && slot == (ULONG_PTR)WpFailedImport)
    {
        ANSI_STRING narrow;
        UNICODE_STRING wide;
        RtlInitAnsiString(&narrow, name);
        if (NT_SUCCESS(RtlAnsiStringToUnicodeString(&wide, &narrow, TRUE)))
        {
            routine = MmGetSystemRoutineAddress(&wide);
            RtlFreeUnicodeString(&wide);
        }
    }
    return routine != NULL ? routine : (PVOID)slot;
}

// PASSIVE_LEVEL, the loading thread.
static VOID WpPatchImport(PCSTR name, ULONG_PTR *slot, const WINEPNP_FAIL *fail)
{
    PVOID routine = WpUnfailed(name, *slot);
    if (fail->Import[0] != '\0' && strcmp(fail->Import, name) == 0)
    {
        WpFailedOriginal = routine;
        WpFailedValue = fail->Value;
        WpFailedPasses = fail->Passes;
        routine = WpFailedImport;
        g_imports.FailedCount += 1;
    }
    if (routine != (PVOID)*slot && !NT_SUCCESS(WpWriteImport(slot, routine)))
    {
        DbgPrint("winepnp: the import %s cannot be replaced\n", name);
    }
}

// PASSIVE_LEVEL, the loading thread. The loader has accepted the image, so its tables are sound.
static VOID WpPatchImage(PUCHAR base, const WINEPNP_FAIL *fail)
{
    const IMAGE_DOS_HEADER *dosHeader = (const IMAGE_DOS_HEADER *)base;
    const IMAGE_NT_HEADERS *headers = (const IMAGE_NT_HEADERS *)(base + dosHeader->e_lfanew);
    const IMAGE_DATA_DIRECTORY *directory = &headers->OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_IMPORT];
    if (directory->VirtualAddress == 0)
    {
        return;
    }
    const IMAGE_IMPORT_DESCRIPTOR *descriptor = (const IMAGE_IMPORT_DESCRIPTOR *)(base + directory->VirtualAddress);
    for (; descriptor->FirstThunk != 0; descriptor++)
    {
        const ULONG_PTR *lookup = (const ULONG_PTR *)(base + descriptor->OriginalFirstThunk);
        ULONG_PTR *slot = (ULONG_PTR *)(base + descriptor->FirstThunk);
        for (; descriptor->OriginalFirstThunk != 0 && *lookup != 0; lookup++, slot++)
        {
            if (!IMAGE_SNAP_BY_ORDINAL(*lookup))
            {
                const IMAGE_IMPORT_BY_NAME *import = (const IMAGE_IMPORT_BY_NAME *)(base + *lookup);
                WpPatchImport((PCSTR)import->Name, slot, fail);
            }
        }
    }
}

// PASSIVE_LEVEL, the loading thread, before the image's DriverEntry.
static VOID NTAPI WpOnImage(PUNICODE_STRING name, HANDLE process, PIMAGE_INFO image)
{
    UNREFERENCED_PARAMETER(name);
    UNREFERENCED_PARAMETER(process);
    if (image->SystemModeImage == 0)
    {
        return;
    }
    ExAcquireFastMutex(&g_imports.Lock);
    WpPatchImage(image->ImageBase, &g_imports.Fail);
    g_imports.Fail.Import[0] = '\0';
    ExReleaseFastMutex(&g_imports.Lock);
}

// PASSIVE_LEVEL, DriverEntry.
NTSTATUS WpWatchImages(VOID)
{
    ExInitializeFastMutex(&g_imports.Lock);
    return PsSetLoadImageNotifyRoutine(WpOnImage);
}

// PASSIVE_LEVEL, DriverEntry.
VOID WpUnwatchImages(VOID)
{
    (void)PsRemoveLoadImageNotifyRoutine(WpOnImage);
}

// PASSIVE_LEVEL, worker.
VOID WpSetFailedImport(const WINEPNP_FAIL *fail)
{
    ExAcquireFastMutex(&g_imports.Lock);
    g_imports.Fail = *fail;
    ExReleaseFastMutex(&g_imports.Lock);
}

// PASSIVE_LEVEL, any thread.
ULONG WpCountFailedImports(VOID)
{
    return g_imports.FailedCount;
}
