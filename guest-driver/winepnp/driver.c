// SPDX-License-Identifier: MIT
// winepnp.sys, the PnP manager for Wine: its device, and the one thread on which requests are carried out.
#include "winepnp.h"
#include <initguid.h>
#include <wdmguid.h>

static struct
{
    LIST_ENTRY Requests;
    FAST_MUTEX RequestsLock;
    KSEMAPHORE RequestCount;
} g_device;

DRIVER_INITIALIZE DriverEntry;
static DRIVER_DISPATCH WpOpenOrClose;
static DRIVER_DISPATCH WpControl;
static KSTART_ROUTINE WpWorker;

// PASSIVE_LEVEL, any thread.
static NTSTATUS WpComplete(PIRP irp, NTSTATUS status, ULONG_PTR information)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = information;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

// PASSIVE_LEVEL, Wine's request thread.
static NTSTATUS NTAPI WpOpenOrClose(PDEVICE_OBJECT device, PIRP irp)
{
    UNREFERENCED_PARAMETER(device);
    return WpComplete(irp, STATUS_SUCCESS, 0);
}

// PASSIVE_LEVEL, Wine's request thread, which serves every driver of the process: it must not wait for callbacks.
static NTSTATUS NTAPI WpControl(PDEVICE_OBJECT device, PIRP irp)
{
    UNREFERENCED_PARAMETER(device);
    const ULONG code = IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.IoControlCode;
    if (code == WINEPNP_IOCTL_STATE || code == WINEPNP_IOCTL_TOLD)
    {
        ULONG_PTR information = 0;
        const NTSTATUS status = WpCarryOut(irp, &information);
        return WpComplete(irp, status, information);
    }
    IoMarkIrpPending(irp);
    ExAcquireFastMutex(&g_device.RequestsLock);
    InsertTailList(&g_device.Requests, &irp->Tail.Overlay.ListEntry);
    ExReleaseFastMutex(&g_device.RequestsLock);
    (void)KeReleaseSemaphore(&g_device.RequestCount, IO_NO_INCREMENT, 1, FALSE);
    return STATUS_PENDING;
}

// PASSIVE_LEVEL, its own system thread; lives as long as the driver, which is never unloaded.
static VOID NTAPI WpWorker(PVOID context)
{
    UNREFERENCED_PARAMETER(context);
    while (NT_SUCCESS(KeWaitForSingleObject(&g_device.RequestCount, Executive, KernelMode, FALSE, NULL)))
    {
        ExAcquireFastMutex(&g_device.RequestsLock);
        PLIST_ENTRY links = RemoveHeadList(&g_device.Requests);
        ExReleaseFastMutex(&g_device.RequestsLock);
        PIRP irp = CONTAINING_RECORD(links, IRP, Tail.Overlay.ListEntry);
        ULONG_PTR information = 0;
        const NTSTATUS status = WpCarryOut(irp, &information);
        (void)WpComplete(irp, status, information);
    }
}

// PASSIVE_LEVEL. There is no DriverUnload: images keep pointers to our routines for as long as they live.
NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driverObject, PUNICODE_STRING registryPath)
{
    UNREFERENCED_PARAMETER(registryPath);
    UNICODE_STRING deviceName = RTL_CONSTANT_STRING(L"\\Device\\winepnp");
    UNICODE_STRING linkName = RTL_CONSTANT_STRING(L"\\DosDevices\\winepnp");

    InitializeListHead(&g_device.Requests);
    ExInitializeFastMutex(&g_device.RequestsLock);
    KeInitializeSemaphore(&g_device.RequestCount, 0, MAXLONG);
    NTSTATUS status = WpInitializeNtdll(driverObject);
    if (!NT_SUCCESS(status))
    {
        return status;
    }
    WpInitializeBook();
    WpInitializeTold();
    WpInitializeProcessors();
    WpInitializeFigures();

    driverObject->MajorFunction[IRP_MJ_CREATE] = WpOpenOrClose;
    driverObject->MajorFunction[IRP_MJ_CLOSE] = WpOpenOrClose;
    driverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = WpControl;

    PDEVICE_OBJECT device = NULL;
    status = IoCreateDevice(driverObject, 0, &deviceName, FILE_DEVICE_UNKNOWN, 0, FALSE, &device);
    if (!NT_SUCCESS(status))
    {
        return status;
    }
    status = IoCreateSymbolicLink(&linkName, &deviceName);
    if (!NT_SUCCESS(status))
    {
        goto DeleteDevice;
    }
    status = WpWatchImages();
    if (!NT_SUCCESS(status))
    {
        goto DeleteLink;
    }
    // Last, because a thread cannot be undone without stopping it.
    HANDLE thread = NULL;
    status = PsCreateSystemThread(&thread, THREAD_ALL_ACCESS, NULL, NULL, NULL, WpWorker, NULL);
    if (!NT_SUCCESS(status))
    {
        goto UnwatchImages;
    }
    (void)ZwClose(thread);
    device->Flags &= ~(ULONG)DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;

UnwatchImages:
    WpUnwatchImages();
DeleteLink:
    (void)IoDeleteSymbolicLink(&linkName);
DeleteDevice:
    IoDeleteDevice(device);
    return status;
}
