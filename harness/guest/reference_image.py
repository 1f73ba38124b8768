# SPDX-License-Identifier: MIT
"""Build the disk image of the reference guest: Linux and Wine from Debian packages.

No root is needed where user namespaces are allowed. Nothing is downloaded but Debian packages,
by the host's own package tools. Nothing of the host gets into the guest: what is copied in is static,
and Wine is the guest's own. The steps, each cached by what it depends on:

1. packages -> the registry of a Wine prefix, made by their own Wine in ``reference_guest/make-prefix``, and a
   tree with only the files named in ``reference_guest/files.txt``;
2. tree + our programs + SSH keys -> ext4 disk, kernel, initramfs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import HostError
from harness.guest import reference_packages
from harness.guest.binaries import GuestBinaries
from harness.guest.reference_packages import find_packages, recipe_files
from harness.host.cache import Progress, content_key, file_hash
from harness.host.tools import failure, find_tool, run_tool

# Linux Documentation/admin-guide/kernel-parameters.txt. The last two save half of what a plugged vCPU costs
# under emulation. noreplace-smp: the kernel keeps the locks that it would otherwise have to put back all over
# its code for the second vCPU. lpj: it does not measure how fast each new one counts; the number is for
# delays that real hardware needs, and none of the devices here does.
KERNEL_APPEND = (
    "console=ttyS0 loglevel=4 panic=-1 memhp_default_state=online mitigations=off noreplace-smp lpj=10000000"
)
BUILD_LIMIT_S = 900.0

_PREFIX = "var/lib/wine"
_FREE_BYTES = 96 * 1024 * 1024
_PROGRAMS = ("sc.exe", "reg.exe", "cmd.exe", "net.exe", "tasklist.exe")


def recipe_key(binaries: GuestBinaries) -> str:
    """Return the content key of the image that this recipe and these binaries make."""
    made_by = Path(__file__), Path(reference_packages.__file__)
    parts: list[bytes | str] = [*(path.read_bytes() for path in made_by), *recipe_files().values()]
    parts += [file_hash(path) for path in copied_programs(binaries).values()]
    return content_key(parts)


def copied_programs(binaries: GuestBinaries) -> dict[str, Path]:
    """Return all that is copied into the image from the build, by its place there.

    The guest has its own libraries, so what is for Linux among them must be static.
    """
    return {
        f"{_PREFIX}/drive_c/windows/system32/drivers/winepnp.sys": binaries.pnp_manager,
        f"{_PREFIX}/drive_c/hil/pnpfeed.exe": binaries.pnp_feed,
        "usr/local/bin/hpfeed": binaries.acpi_feed,
        "usr/local/bin/hpprobe.exe": binaries.spare_probe,
    }


def build_reference_image(
    folder: Path, *, binaries: GuestBinaries, cache: Path, progress: Progress
) -> tuple[str, ...]:
    """Fill the folder with ``disk.img``, ``vmlinuz``, ``initrd.img``, ``user_key`` and ``host_key.pub``.

    :return: the Debian packages it was made of, with their versions.
    :raise HostError: if a tool is missing or a step fails.
    """
    deadline = Deadline.after(BUILD_LIMIT_S)
    recipe = recipe_files()
    base = find_packages(cache, recipe=recipe, progress=progress)
    tree = folder / "tree"
    progress("copying the guest's files", 0.70)
    run_tool(["cp", "--archive", "--link", base, tree], deadline=deadline)
    _fill_prefix(tree)
    progress("adding keys and start-up files", 0.80)
    _add_system_files(tree, recipe=recipe)
    for place, program in copied_programs(binaries).items():
        shutil.copy(program, tree / place)
    _make_keys(folder, tree, deadline=deadline)
    progress("packing the disk", 0.90)
    _make_initrd(folder, tree, recipe=recipe, deadline=deadline)
    _make_disk(folder / "disk.img", tree, deadline=deadline)
    packages = tuple(Path(line).stem for line in (tree / "etc/hil-packages").read_text().split())
    shutil.rmtree(tree)
    progress("image built", 1.0)
    return packages


def _fill_prefix(tree: Path) -> None:
    """Complete the Wine prefix, of which only the registry is there."""
    prefix = tree / _PREFIX
    windows = prefix / "drive_c/windows"
    for name in ("system32/drivers", "temp", "Fonts", "inf"):
        (windows / name).mkdir(parents=True)
    for name in ("ProgramData", "Program Files", "users/root/Temp", "hil"):
        (prefix / "drive_c" / name).mkdir(parents=True)
    # Wine would otherwise spend minutes under emulation on bringing the prefix "up to date".
    (prefix / ".update-timestamp").write_text("disable\n")
    (prefix / "dosdevices").mkdir()
    (prefix / "dosdevices/c:").symlink_to("../drive_c")
    (prefix / "dosdevices/z:").symlink_to("/")
    built_in = (tree / "usr/lib/x86_64-linux-gnu/wine/x86_64-windows").iterdir()
    for program in (*built_in, *(tree / "usr/x86_64-w64-mingw32/lib").iterdir()):
        place = windows / "system32" / ("drivers" if program.suffix == ".sys" else "") / program.name
        place.hardlink_to(program)


def _add_system_files(tree: Path, *, recipe: dict[str, bytes]) -> None:
    for name in ("dev", "proc", "sys", "run", "tmp", "root/.ssh", "etc/ssh", "etc/init.d", "usr/local/bin"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    (tree / "root").chmod(0o700)
    (tree / "root/.ssh").chmod(0o700)
    (tree / "C:").symlink_to(f"/{_PREFIX}/drive_c")
    (tree / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n"
    )
    (tree / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (tree / "etc/shadow").write_text("root:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n")
    (tree / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost reference\n")
    (tree / "etc/inittab").write_bytes(recipe["inittab"])
    (tree / "etc/wine.env").write_bytes(recipe["wine.env"])
    (tree / "etc/ssh/sshd_config").write_bytes(recipe["sshd_config"])
    _write_program(tree / "etc/init.d/guest-up", recipe["guest-up"])
    _write_program(tree / "usr/local/bin/guest-parts", recipe["guest-parts"])
    # Programs of Windows answer by name, as they do on Windows.
    for name in _PROGRAMS:
        _write_program(tree / "usr/local/bin" / name, f'#!/bin/sh\nexec wine64 {name} "$@"\n'.encode())
    busybox = tree / "bin/busybox"
    for applet in run_tool([busybox, "--list-full"], deadline=Deadline.after(10)).split():
        link = tree / applet
        if not link.exists() and not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to("/bin/busybox")


def _write_program(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o755)


def _make_keys(folder: Path, tree: Path, *, deadline: Deadline) -> None:
    keygen = find_tool("ssh-keygen")
    # OpenSSL's code for this curve is several times faster than OpenSSH's own for ed25519.
    for path, comment in ((folder / "host_key", "reference-guest"), (folder / "user_key", "harness")):
        run_tool([keygen, "-q", "-t", "ecdsa", "-N", "", "-C", comment, "-f", path], deadline=deadline)
    # The guest keeps the only copy of its private key.
    (folder / "host_key").rename(tree / "etc/ssh/ssh_host_key")
    shutil.copy(folder / "user_key.pub", tree / "root/.ssh/authorized_keys")


def _make_initrd(folder: Path, tree: Path, *, recipe: dict[str, bytes], deadline: Deadline) -> None:
    kernel = next((tree / "boot").glob("vmlinuz-*"))
    kernel.rename(folder / "vmlinuz")
    root = folder / "initramfs"
    for name in ("bin", "dev", "modules", "root"):
        (root / name).mkdir(parents=True)
    shutil.copy(tree / "bin/busybox", root / "bin/busybox")
    for module in (tree / "lib/modules").rglob("*.ko"):
        shutil.copy(module, root / "modules" / module.name)
    _write_program(root / "init", recipe["initramfs-init"])
    names = "\n".join(os.fspath(path.relative_to(root)) for path in sorted(root.rglob("*")))
    pack = [find_tool("cpio"), "--create", "--quiet", "--format=newc", "--owner=0:0", "--reproducible"]
    done = subprocess.run(
        pack, cwd=root, input=names.encode(), capture_output=True, check=False, timeout=deadline.remaining_s()
    )
    if done.returncode != 0:
        raise HostError(failure(pack, done.returncode, done.stderr))
    (folder / "initrd.img").write_bytes(done.stdout)
    shutil.rmtree(root)
    shutil.rmtree(tree / "lib/modules")


def _make_disk(disk: Path, tree: Path, *, deadline: Deadline) -> None:
    used_bytes = int(run_tool(["du", "--summarize", "--block-size=1", tree], deadline=deadline).split()[0])
    size_kib = (used_bytes * 11 // 10 + _FREE_BYTES) // 1024
    pack: list[str | Path] = [
        *(find_tool("mkfs.ext4"), "-q", "-F"),
        # The smallest journal there is: a guest that is reset in the middle of writing comes up whole.
        *("-J", "size=4"),
        *("-d", tree, disk, f"{size_kib}k"),
    ]
    # Inside a user namespace every file of this user is root's, as it must be in the guest.
    as_root = [] if os.geteuid() == 0 else [find_tool("unshare"), "--map-root-user"]
    run_tool([*as_root, *pack], deadline=deadline)
