"""How commands show their help, under headings, and how a command that works on modalities becomes a group of one subcommand for each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from imagebind_cli.cli.flags import MODALITY, REGION_FLAGS, modality_flags, refuse_flag
from imagebind_cli.errors import UsageError
from imagebind_cli.options import modalities as reading
from imagebind_cli.options.drawn import REGION_OPTIONS
from imagebind_cli.registry import MODALITIES

SHOW_ALL = "--help-all"
NAME_WIDTH = 34  # columns for an option and its value, before its text starts on a line of its own
USAGE_ERROR: Any = typer.BadParameter.__mro__[1]  # what the parser raises for wrong options; typer does not export it
TYPES = {"int": "N", "float": "NUMBER", "str": "TEXT", "Path": "PATH"}  # annotation to what help calls a value


class HeadedCommand(TyperCommand):
    """A command whose options are listed under headings (`rich_help_panel`). Hidden ones are listed by --help-all."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, plain_help(ctx, args))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", *(parameter.metavar or f"[{parameter.name}]" for parameter in self.params if _is_argument(parameter))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        if write_sections(self.params, ctx, formatter):
            formatter.write(f"\nFurther options: {ctx.command_path} {SHOW_ALL}\n")


class _OnDemand(Mapping[str, Any]):
    """Commands by name, each built when it is first asked for: building all of them takes more than half as long as importing typer."""

    def __init__(self, builders: Mapping[str, Callable[[], Any]]) -> None:
        self._builders, self._built = builders, dict[str, Any]()

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            self._built[name] = self._builders[name]()
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._builders)

    def __len__(self) -> int:
        return len(self._builders)


def commands_on_demand(names: Iterable[str]) -> Any:
    """Return commands by their names; of each, the module is imported and the command built when it is first asked for."""
    return _OnDemand({name: partial(_build, name) for name in names})


def _build(name: str) -> Any:
    app: typer.Typer = import_module(f"imagebind_cli.cli.{name}").app
    if [info.name for info in app.registered_commands] == [name]:
        return typer.main.get_group(app).commands[name]
    above = typer.Typer(rich_markup_mode=None)
    above.add_typer(app, name=name)
    return typer.main.get_group(above).commands[name]


class ModalityCommand(HeadedCommand):
    """A subcommand of a modality, which says so when it is given an option of another."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except USAGE_ERROR as error:
            name = str(getattr(error, "option_name", "")).lstrip("-").replace("-", "_")
            if name in reading.flags() and name not in {parameter.name for parameter in self.params}:
                refuse_flag(str(self.name).split(","), name)
            raise


class ModalityGroup(TyperGroup):
    """A group with a subcommand for each modality, which has the common options and those of its own readers.

    Typer builds the parameters of the whole command once; each subcommand takes its share of them. Options may come before the modality, too.
    Several modalities, joined by commas, are a subcommand of their own.

    command_class: of the subcommands. left_out: modalities that help does not list, since the command refuses them.
    """

    command_class: type[ModalityCommand] = ModalityCommand
    left_out: frozenset[str] = frozenset()

    def __init__(self, *, params: Sequence[Any], callback: Callable[..., Any], help: str, **attributes: Any) -> None:
        parameters = [parameter for parameter in params if parameter.name != MODALITY]
        options = [parameter for parameter in parameters if not _is_argument(parameter)]
        super().__init__(params=options, callback=callback, help=help, **attributes)
        self._parameters, self._callback = parameters, callback
        self.invoke_without_command = any(parameter.name == MODALITY and not parameter.required for parameter in params)
        self.commands: Any = _OnDemand({name: partial(self._subcommand, name) for name in MODALITIES if name not in self.left_out})

    def _subcommand(self, modality: str) -> HeadedCommand:
        """Return the command on one modality, or on several joined by commas."""
        flags = modality_flags(modality.split(","))
        known = reading.flags()
        parameters = [
            _shown(parameter, f"Reading {modality}")
            if parameter.name in flags
            else _shown(parameter)
            if parameter.name in REGION_FLAGS and flags.issuperset(REGION_OPTIONS)
            else copy.copy(parameter)
            for parameter in self._parameters
            if parameter.name in flags or (parameter.name not in known and not _is_flag_of(flags, parameter))
        ]
        return self.command_class(
            modality,
            params=parameters,
            callback=partial(self._callback, **{MODALITY: modality}),
            help=_help_of(self.help or "", f" {self.name} {modality} "),
            short_help=reading.SUMMARIES.get(modality, ""),
            rich_markup_mode=None,
        )

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        args = plain_help(ctx, args)
        _, rest, _ = self.make_parser(ctx).parse_args(args=list(args))
        if not rest:
            return super().parse_args(ctx, args)
        before = args[: len(args) - len(rest)]
        ctx.args = [rest[0], *before, *rest[1:]]
        return ctx.args

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        if ctx.resilient_parsing:  # of a completion, which must not fail
            return None
        modality_flags(cmd_name.split(","))  # refuses an unknown one
        return self._subcommand(cmd_name)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Complete a modality, also one behind others and a comma."""
        before = incomplete[: incomplete.rfind(",") + 1]
        items = [item for item in super().shell_complete(ctx, incomplete[len(before) :]) if item.value not in before.split(",")]
        for item in items:
            item.value = before + item.value
        return items

    def invoke(self, ctx: Any) -> Any:
        if ctx.args:
            name, command, args = self.resolve_command(ctx, ctx.args)
            assert command is not None
            with ctx, command.make_context(name, args, parent=ctx) as context:
                return command.invoke(context)
        if not self.invoke_without_command:
            raise UsageError(f"the modality is missing; choose from {', '.join(self.commands)}")
        return ctx.invoke(self._callback, **ctx.params, **{MODALITY: None})

    def format_options(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Modalities"):
            formatter.write_dl([(name, command.short_help or "") for name, command in self.commands.items()])
        write_sections(self.params, ctx, formatter)
        formatter.write(f"\nOptions of a modality: {ctx.command_path} {next(iter(self.commands))} --help. All options: {SHOW_ALL}\n")


def single_command(name: str, command: Callable[..., None], **settings: Any) -> typer.Typer:
    """Return a command without subcommands. settings: as `typer.Typer.command` takes them."""
    app = typer.Typer(rich_markup_mode=None)
    app.command(name, **settings)(command)
    return app


def modality_group(command: Callable[..., None], help: str, group_class: type[ModalityGroup] = ModalityGroup) -> typer.Typer:
    """Return a command with a `modality` among its arguments as a group of one subcommand for each modality."""
    group = typer.Typer(cls=group_class, help=help, subcommand_metavar="MODALITY [INPUT]...", rich_markup_mode=None)
    group.callback()(command)
    return group


def write_sections(parameters: Iterable[Any], ctx: Any, formatter: Any) -> bool:
    """Write arguments and options under their headings: input first, others in their order of appearance, those without a heading last.

    Returns:
        Whether some were left out, as hidden.
    """
    sections: dict[str, list[tuple[str, str]]] = {}
    parameters = list(parameters)
    rest = "Other" if any(parameter.rich_help_panel for parameter in parameters) else "Options"
    shown = [parameter for parameter in parameters if ctx.meta.get(SHOW_ALL) or not parameter.hidden]
    for parameter in shown:
        heading = parameter.rich_help_panel or ("Arguments" if _is_argument(parameter) else rest)
        sections.setdefault(heading, []).append(_row(parameter))
    for heading in sorted(sections, key=lambda heading: (heading == rest) - (heading == "Input")):
        with formatter.section(heading):
            formatter.write_dl(sections[heading], col_max=NAME_WIDTH)
    return len(shown) < len(parameters)


def _row(parameter: Any) -> tuple[str, str]:
    """Return an argument or option with the values it takes, and its text with its default."""
    text = parameter.help or ""
    default = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default if parameter.show_default else None
    if default not in (None, False):
        text += f" [default: {default}]"
    if _is_argument(parameter):
        return parameter.metavar or parameter.name, text
    names = ", ".join(sorted(parameter.opts, key=len))
    return names if parameter.is_flag else f"{names} {parameter.metavar or _value(parameter)}", text


def _value(parameter: Any) -> str:
    """Return the name of an option's value: its choices, or its type."""
    kind = parameter.type_descriptor
    if kind.is_choice:
        return "|".join(str(getattr(choice, "value", choice)) for choice in kind.choices)
    name = parameter.bare_type().removeprefix("list[").removesuffix("]")
    return TYPES.get(name, name.upper())


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _is_flag_of(names: set[str], parameter: Any) -> bool:
    """Check whether an option goes by the flag of one of some reading options, which then stands for both."""
    return not _is_argument(parameter) and bool({f"--{name.replace('_', '-')}" for name in names} & {*parameter.opts})


def _shown(parameter: Any, heading: str | None = None) -> Any:
    """Return an option that is not hidden. heading: of the modality, for one of its reading options."""
    parameter = copy.copy(parameter)
    parameter.hidden = False
    if heading is not None:
        parameter.rich_help_panel, parameter.help = heading, reading.flags()[parameter.name].metadata["help"]
    return parameter


def plain_help(ctx: Any, args: list[str]) -> list[str]:
    """Return the arguments with --help in place of --help-all, which the context remembers."""
    if SHOW_ALL not in args:
        return args
    ctx.meta[SHOW_ALL] = True
    return ["--help" if argument == SHOW_ALL else argument for argument in args]


def _help_of(help: str, words: str) -> str:
    """Return the first paragraph of a command's help, and those of its examples that contain some words."""
    introduction, *_ = help.split("\n\n", 1)
    examples = [f"    {line.strip()}" for line in help.splitlines() if words in line]
    return "\n\n".join([introduction, *(["\b\n" + "\n".join(examples)] if examples else [])])
