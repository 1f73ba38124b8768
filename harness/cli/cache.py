# SPDX-License-Identifier: MIT
"""The commands on the cache: ``hil image list|remove|build`` and ``hil template list|remove``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

images = typer.Typer(no_args_is_help=True, help="Guest images in the cache.")
templates = typer.Typer(no_args_is_help=True, help="Booted guests in the cache, ready to be forked.")

_Keys = Annotated[list[str] | None, typer.Argument(help="Keys as listed, or their beginnings.")]
_All = Annotated[bool, typer.Option("--all", help="Remove all of them.")]


def add_commands(app: typer.Typer) -> None:
    """Add ``image`` and ``template`` to a command line."""
    app.add_typer(images, name="image")
    app.add_typer(templates, name="template")


@images.command("list")
def list_images() -> None:
    """List the images that were built here."""
    from harness.cli import stored

    stored.print_images()


@images.command("remove")
def remove_images(keys: _Keys = None, every: _All = False) -> None:
    """Remove images and the templates made from them; refuses what is in use."""
    from harness.cli import stored

    stored.remove_stored("image", keys, every=every)


@images.command("build")
def build_image(
    guest: Annotated[str, typer.Option("--guest", help="Name of a guest profile.")] = "reference",
    profiles: Annotated[
        Path | None, typer.Option(help="Folder of guest profiles, looked in before the project's own.")
    ] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Build it anew, of the packages that there are today.")
    ] = False,
) -> None:
    """Build a guest's image unless the cache has it, check it, and say where it is."""
    from harness.cli import stored

    stored.build_image(guest, profiles, refresh=refresh)


@templates.command("list")
def list_templates(
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare memory and disk with what was saved, too.")
    ] = False,
) -> None:
    """List the templates; exit status 3 if --verify finds a damaged one."""
    from harness.cli import stored

    stored.print_templates(verify=verify)


@templates.command("remove")
def remove_templates(keys: _Keys = None, every: _All = False) -> None:
    """Remove templates; refuses what is in use."""
    from harness.cli import stored

    stored.remove_stored("template", keys, every=every)
