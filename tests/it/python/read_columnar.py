"""Prints a Parquet or Arrow IPC file as JSON, as pyarrow reads it; checks that DuckDB reads the same from Parquet."""
import base64, json, sys
import pyarrow as pa
import pyarrow.ipc, pyarrow.parquet as pq


def plain(value):
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


path, kind = sys.argv[1], sys.argv[2]
printed = {}
if kind == "parquet":
    file = pq.ParquetFile(path)
    table, meta = file.read(), file.metadata
    groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
    printed["groups"] = [group.num_rows for group in groups]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    printed["compression"] = sorted({column.compression for column in columns})
    printed["statistics"] = all(column.is_stats_set for column in columns)
    printed["page_index"] = all(column.has_column_index and column.has_offset_index for column in columns)
    printed["created_by"] = meta.created_by
    if "no-duckdb" not in sys.argv:
        import duckdb
        duckdb.sql("set timezone = 'UTC'")
        rows = duckdb.sql(f"select * from read_parquet('{path}')").to_arrow_table()
        for index, field in enumerate(table.schema):
            if pa.types.is_null(field.type):
                continue
            theirs = rows.column(index).cast(field.type)
            assert theirs.equals(table.column(index).cast(field.type)), field
else:
    with pa.ipc.open_file(path) as file:
        table = file.read_all()
        printed["batches"] = file.num_record_batches
table.validate(full=True)
printed["schema"] = [[field.name, str(field.type), field.nullable] for field in table.schema]
printed["metadata"] = [
    {key.decode(): value.decode() for key, value in (field.metadata or {}).items() if not key.startswith(b"PARQUET:")}
    for field in table.schema
]
printed["rows"] = table.num_rows
if "no-values" not in sys.argv:
    printed["columns"] = [[plain(value) for value in column.to_pylist()] for column in table.columns]
json.dump(printed, sys.stdout)
