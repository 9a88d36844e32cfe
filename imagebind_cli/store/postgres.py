"""Export a store to a table of PostgreSQL with pgvector, by binary COPY in one transaction. The same call again adds what is missing.

The table's comment holds how the vectors were made, as JSON, so that a table never mixes two models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from imagebind_cli.documents import parse_json
from imagebind_cli.errors import UsageError, UserError, first_line
from imagebind_cli.store.provenance import check_alike, refuse_other_family
from imagebind_cli.store.reader import StoreReader
from imagebind_cli.store.table_columns import TableColumns, Thumbnail, choose_columns

SCHEMES = ("postgresql://", "postgres://")
TABLE = "embeddings"
CONNECT_SECONDS = 10
NAME_BYTES = 63  # of an identifier; PostgreSQL cuts longer ones
VECTORS = {"float32": ("vector", 2000), "float16": ("halfvec", 4000)}  # the type, and how many dimensions its indexes take
TYPES = {"start": "float8", "end": "float8", "meta": "jsonb", "thumbnail": "bytea"}  # all other columns are text
EXAMPLE = "postgresql://USER@HOST/DATABASE"


@dataclass(frozen=True)
class TableExport:
    """The counts of an export to a table.

    place: the database without the password. table: its name in SQL. rows: of the store. added: those the table lacked. removed: older rows of the
    same ids. index: a statement that makes searches fast; None where the table existed before, or has too many dimensions for one.
    """

    place: str
    table: str
    rows: int
    added: int
    removed: int
    index: str | None


def is_database(output: str) -> bool:
    """Check whether an output is the address of a database, and not a file.

    Raises:
        UsageError: an address of another kind, which may hold a password and is not repeated.
    """
    scheme, separator, _ = output.partition("://")
    if separator and not output.startswith(SCHEMES):
        raise UsageError(f"unknown kind of address {scheme + separator}…; choose from {', '.join(SCHEMES)}")
    return bool(separator)


def export_to_postgres(
    reader: StoreReader, address: str, array: str, *, table: str = TABLE, columns: str | None = None, thumbnail: Thumbnail | None = None
) -> TableExport:
    """Add a store's rows to a table, which is created if it is missing, as is the extension `vector`. All of it happens or nothing.

    Rows that the table has are left; other rows of the same id and modality are replaced.

    Args:
        address: `postgresql://USER@HOST/DATABASE`, as libpq reads it. The password had better be in PGPASSWORD or ~/.pgpass.
        array: float32 for columns of type vector, float16 for halfvec. table: NAME or SCHEMA.NAME.
        columns: as `choose_columns` reads them; `id` must be among them. thumbnail: draws the column `thumbnail`.
    Raises:
        UserError: psycopg is not installed, the server refuses, or the table has other columns or vectors of another model.
        UsageError: a malformed address, table or column.
    """
    psycopg = _psycopg()
    place, password = _place(psycopg, address)
    chosen = choose_columns(columns, array, thumbnail)
    names = _check_names(table, chosen)
    made = reader.provenance | {"array": array}
    with _reporting(psycopg, place, password), psycopg.connect(_with_timeout(psycopg, address)) as connection:
        transfer = _Transfer(connection, psycopg.sql.Identifier(*names), chosen, reader.dim)
        is_new = transfer.prepare(place, made)
        rows = transfer.copy(reader)
        removed, added = (0, rows) if is_new else transfer.merge()
        return TableExport(place, transfer.name, rows, added, removed, transfer.index() if is_new else None)


class _Transfer:
    """A transaction: rows go into the table itself if it is new, else into a temporary one and from there into it."""

    def __init__(self, connection: Any, table: Any, columns: TableColumns, dim: int) -> None:
        self._connection, self._columns, self._table, self._dim = connection, columns, table, dim
        self._sql = _psycopg().sql
        self._incoming = table
        self.name: str = table.as_string(connection)

    def prepare(self, place: str, made: Mapping[str, Any]) -> bool:
        """Create what is missing, and check and renew the record of how the vectors were made. Returns whether the table is new."""
        from pgvector.psycopg import register_vector

        self._run("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(self._connection)
        self._run("SELECT pg_advisory_xact_lock(hashtextextended({}, 0))", self._sql.Literal(self.name))  # two exports take turns
        found = self._run("SELECT to_regclass({})", self._sql.Literal(self.name)).fetchone()[0]
        record: dict[str, Any] = {"columns": dict(self._columns.names), "made": {}}
        if found is None:
            self._run("CREATE TABLE {} ({})", self._table, self._definitions())
            self._run("CREATE INDEX ON {} ({})", self._table, self._column("id"))
        else:
            comment = self._run("SELECT obj_description({}::regclass, 'pg_class')", self._sql.Literal(self.name)).fetchone()[0]
            record = _check_record(f"{place}, table {self.name}", comment, record["columns"], made)
            self._incoming = self._sql.Identifier("pg_temp", "imagebind_incoming")
            self._run("CREATE TEMPORARY TABLE imagebind_incoming ({}) ON COMMIT DROP", self._definitions())
        record["made"][made["modality"]] = dict(made)
        self._run("COMMENT ON TABLE {} IS {}", self._table, self._sql.Literal(json.dumps(record)))
        return found is None

    def copy(self, reader: StoreReader) -> int:
        """Send all rows of a store, block by block. Returns how many there were."""
        from pgvector import HalfVector, Vector
        from psycopg.types.json import Jsonb

        count, vector = 0, HalfVector if self._columns.array == "float16" else Vector
        statement = self._sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(self._incoming, self._list())
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types([self._type(column) for column in self._columns.names])
            for rows in self._columns.blocks(reader):
                values = {column: self._columns.values(rows, column, reader.modality) for column in self._columns.names}
                if "meta" in values:
                    values["meta"] = [text and Jsonb(text, dumps=str) for text in values["meta"]]
                if "embedding" in values:
                    values["embedding"] = map(vector, values["embedding"])
                for row in zip(*values.values(), strict=True):
                    copy.write_row(row)
                count += len(rows)
        return count

    def merge(self) -> tuple[int, int]:
        """Replace the rows of ids whose rows differ, and add those of new ids. Returns how many rows were removed and added."""
        sql = self._sql
        self._run("ANALYZE imagebind_incoming")
        keys = [column for column in ("id", "modality") if column in self._columns.names]
        key = sql.SQL(" AND ").join(sql.SQL("t.{0} = i.{0}").format(self._column(column)) for column in keys)
        same = sql.SQL(" AND ").join(
            sql.SQL("t.{0} IS NOT DISTINCT FROM i.{0}").format(self._column(column)) for column in self._columns.names if column not in keys
        )
        equal = sql.SQL(" AND ").join([key, same] if len(self._columns.names) > len(keys) else [key])
        removed = self._run(
            "DELETE FROM {0} t WHERE EXISTS (SELECT FROM {1} i WHERE {2}) AND NOT EXISTS (SELECT FROM {1} i WHERE {3})",
            *(self._table, self._incoming, key, equal),
        ).rowcount
        added = self._run(
            "INSERT INTO {0} ({4}) SELECT {4} FROM {1} i WHERE NOT EXISTS (SELECT FROM {0} t WHERE {3})",
            *(self._table, self._incoming, key, equal, self._list()),
        ).rowcount
        return removed, added

    def index(self) -> str | None:
        """Return the statement that creates an index for nearest rows by cosine; None if there is none for so many dimensions."""
        kind, most = VECTORS[self._columns.array]
        if "embedding" not in self._columns.names or self._dim > most:
            return None
        return f"CREATE INDEX ON {self.name} USING hnsw ({self._column('embedding').as_string(self._connection)} {kind}_cosine_ops)"

    def _run(self, statement: str, *parts: Any) -> Any:
        return self._connection.execute(self._sql.SQL(statement).format(*parts))

    def _column(self, column: str) -> Any:
        return self._sql.Identifier(self._columns.names[column])

    def _list(self) -> Any:
        return self._sql.SQL(", ").join(map(self._column, self._columns.names))

    def _type(self, column: str) -> str:
        return VECTORS[self._columns.array][0] if column == "embedding" else TYPES.get(column, "text")

    def _definitions(self) -> Any:
        sizes = {"embedding": f"({self._dim}) NOT NULL", "id": " NOT NULL", "modality": " NOT NULL"}
        types = {column: self._sql.SQL(self._type(column) + sizes.get(column, "")) for column in self._columns.names}
        return self._sql.SQL(", ").join(self._sql.SQL("{} {}").format(self._column(column), type) for column, type in types.items())


def _check_record(where: str, comment: str | None, columns: Mapping[str, str], made: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a table that rows may be added to.

    Raises:
        UserError: the table is not one of ours, or it has other columns or vectors of another model.
    """
    try:
        record = parse_json(comment or "")
        names, makers = dict(record["columns"]), dict(record["made"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{where}: exists and was not made by imagebind store export; name another with --table") from None
    if names != columns:
        written = ",".join(column if column == name else f"{column}={name}" for column, name in names.items())
        raise UserError(f"{where}: has other columns; add --columns {written}, or name another with --table")
    modality = str(made["modality"])
    if modality in makers:
        check_alike(where, makers[modality], "the store", made)
    elif makers and "modality" not in columns:
        raise UserError(f"{where}: holds {', '.join(makers)} and has no column for the modality; name another with --table")
    for other in makers.values():
        refuse_other_family((where, other), ("the store", made))
        if key := next((key for key in ("model", "dim", "array") if other.get(key) != made.get(key)), None):
            raise UserError(f"{where}: has vectors of {key} {other.get(key)}, the store of {made.get(key)}; name another with --table")
    return {"columns": names, "made": makers}


def _check_names(table: str, columns: TableColumns) -> list[str]:
    """Return the parts of a table's name.

    Raises:
        UsageError: not NAME or SCHEMA.NAME, a name that PostgreSQL would cut, or no column for the id.
    """
    parts = table.split(".")
    if len(parts) > 2 or not all(parts):
        raise UsageError(f"--table {table!r}: NAME or SCHEMA.NAME is needed")
    for name in (*parts, *columns.names.values()):
        if len(name.encode()) > NAME_BYTES:
            raise UsageError(f"{name}: a name of PostgreSQL has at most {NAME_BYTES} bytes, this one {len(name.encode())}")
    if "id" not in columns.names:
        raise UsageError("--columns: a table of PostgreSQL needs the column id, by which the same command again adds only what is missing")
    return parts


def _place(psycopg: Any, address: str) -> tuple[str, str]:
    """Return the name of a database without the password, and the password, which no message may hold."""
    try:
        parts = psycopg.conninfo.conninfo_to_dict(address)
    except psycopg.ProgrammingError:  # its message may hold a part of the password
        raise UsageError(f"not an address of PostgreSQL; as {EXAMPLE}, with special characters of a password as %-escapes") from None
    port = f":{parts['port']}" if parts.get("port") else ""
    user = f"{parts['user']}@" if parts.get("user") else ""
    return f"postgresql://{user}{parts.get('host', '')}{port}/{parts.get('dbname', '')}", str(parts.get("password") or "")


def _with_timeout(psycopg: Any, address: str) -> str:
    parts = psycopg.conninfo.conninfo_to_dict(address)
    return str(psycopg.conninfo.make_conninfo(**{"connect_timeout": CONNECT_SECONDS} | parts))


@contextmanager
def _reporting(psycopg: Any, place: str, password: str) -> Iterator[None]:
    """Report an error of the database in one line, with the server's hint and without the password."""
    try:
        yield
    except psycopg.Error as error:
        said = error.diag.message_primary or first_line(error)
        hint = "install pgvector on the server" if '"vector" is not available' in said else error.diag.message_hint
        line = f"{said}; {hint}" if hint else said
        raise UserError(f"{place}: {line.replace(password, '…') if password else line}") from None


def _psycopg() -> Any:
    try:
        import pgvector.psycopg  # noqa: F401 (so that it is missed before anything is done)
        import psycopg
        import psycopg.sql
    except ImportError:
        raise UserError("PostgreSQL needs psycopg and pgvector, which are not installed: pip install 'imagebind-cli[postgres]'") from None
    return psycopg
