"""Files and streams as programs that are not ours read them: lists of cells, row by row, in constant memory."""
import csv, gzip, io, itertools, re, zipfile
from xml.etree import ElementTree

import duckdb, openpyxl, pyarrow as pa, pyarrow.csv, pyarrow.ipc, pyarrow.parquet
from openpyxl.utils.escape import unescape

import expected

SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def opened(path):
    if path.endswith(".gz"):
        return gzip.open(path)
    return pa.input_stream(path, compression="zstd") if path.endswith(".zst") else open(path, "rb")


def headers(result):
    return [field["header"] for field in result["fields"]]


def csv_python(result):
    options = result["options"]
    encoding = "utf-8-sig" if options.get("bom") else "utf-8"
    with io.TextIOWrapper(opened(result["path"]), encoding=encoding, newline="") as text:
        rows = csv.reader(text, delimiter=options.get("delimiter", ","), strict=True)
        if not options.get("no_header"):
            assert next(rows) == headers(result)
        yield from rows


def csv_bytes(result):
    """No rows: the byte order mark and the line ends."""
    options = result["options"]
    with opened(result["path"]) as file:
        whole = file.read()
    assert whole.startswith(b"\xef\xbb\xbf") == bool(options.get("bom")), whole[:10]
    end = b"\r\n" if options.get("crlf") else b"\n"
    first = whole.removeprefix(b"\xef\xbb\xbf").split(b"\n")[0] + b"\n"
    assert first.endswith(end) and whole.endswith(end), (first, whole[-10:])
    assert options.get("crlf") or not first.endswith(b"\r\n"), first
    return iter(())


def csv_duckdb(result):
    """Tells NULL from the empty string, as does the next."""
    options = result["options"]
    names = ", ".join(f"'c{index}': 'VARCHAR'" for index in range(len(result["fields"])))
    new_line = "\\r\\n" if options.get("crlf") else "\\n"
    compression = {"gz": "gzip", "zst": "zstd"}.get(result["path"].rsplit(".", 1)[1], "none")
    return fetched(duckdb.connect().execute(
        f"""select * from read_csv($path, columns = {{{names}}}, auto_detect = false, header = $header, delim = $delimiter,
        quote = '"', escape = '"', nullstr = $null, allow_quoted_nulls = false, compression = '{compression}',
        new_line = '{new_line}')""",
        {"path": result["path"], "header": not options.get("no_header"), "delimiter": options.get("delimiter", ","),
         "null": options.get("null_text", "")}))


def csv_arrow(result):
    options = result["options"]
    names = [f"c{index}" for index in range(len(result["fields"]))]
    reader = pa.csv.open_csv(
        result["path"],
        read_options=pa.csv.ReadOptions(column_names=names, skip_rows=0 if options.get("no_header") else 1, block_size=8 << 20),
        parse_options=pa.csv.ParseOptions(delimiter=options.get("delimiter", ","), newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(
            column_types={name: pa.string() for name in names}, null_values=[options.get("null_text", "")],
            strings_can_be_null=True, quoted_strings_can_be_null=False))
    return arrow_rows(reader)


def fetched(relation):
    while chunk := relation.fetchmany(10_000):
        yield from map(list, chunk)


def jsonl_python(result):
    names = [field["name"] for field in result["fields"]]
    with io.TextIOWrapper(opened(result["path"]), encoding="utf-8", newline="\n") as lines:
        for line in lines:
            assert line.endswith("\n") or result["format"] == "json_lines", line
            pairs = expected.loads(line)
            assert [name for name, _ in pairs] == names, line
            yield [value for _, value in pairs]


def xlsx_openpyxl(result):
    book = openpyxl.load_workbook(result["path"], read_only=True)
    assert book.sheetnames == sheet_names(result), book.sheetnames
    numbers = itertools.chain.from_iterable(raw_rows(result["path"], index) for index in range(1, len(book.sheetnames) + 1))
    for sheet in book.worksheets:
        for number, (row, raw) in enumerate(zip(sheet.iter_rows(values_only=True), numbers)):
            row = [unescape(cell) if isinstance(cell, str) else cell for cell in row]
            row += [None] * (len(result["fields"]) - len(row))
            if number == 0:
                assert row == headers(result), row
            else:
                yield [(cell, raw.get(index)) for index, cell in enumerate(row)]
    assert next(numbers, None) is None


def sheet_names(result):
    name = result["options"].get("sheet", "Sheet1")
    return [name] + [f"{name} ({number})" for number in range(2, result.get("sheets", 1) + 1)]


def raw_rows(path, index):
    """The text of each number, by column: openpyxl rounds dates."""
    with zipfile.ZipFile(path) as archive, archive.open(f"xl/worksheets/sheet{index}.xml") as sheet:
        for _, element in ElementTree.iterparse(sheet):
            if element.tag == f"{SHEET}row":
                cells = [cell for cell in element if cell.get("t") in (None, "n") and cell.find(f"{SHEET}v") is not None]
                yield {column_of(cell.get("r")): cell.find(f"{SHEET}v").text for cell in cells}
                element.clear()


def column_of(name):
    number = 0
    for letter in re.match("[A-Z]+", name)[0]:
        number = number * 26 + ord(letter) - 64
    return number - 1


def parquet_pyarrow(result):
    file = pa.parquet.ParquetFile(result["path"])
    check_types(file.schema_arrow, result)
    return arrow_rows(file.iter_batches())


def parquet_duckdb(result):
    """Its timestamps of the far past and future and its infinities have other integers: pyarrow has compared those."""
    db = duckdb.connect()
    db.execute("set timezone = 'UTC'")
    reader = db.sql(f"select * from read_parquet('{result['path']}')").to_arrow_reader(10_000)
    for batch in reader:
        columns = [column.cast(field.type) if not pa.types.is_list(field.type) and str(column.type) != str(field.type) else column
                   for column, field in zip(batch.columns, pa.parquet.read_schema(result["path"]))]
        yield from arrow_rows([pa.RecordBatch.from_arrays(columns, batch.schema.names)])


def arrow_file(result):
    with pa.ipc.open_file(result["path"]) as file:
        check_types(file.schema, result)
        yield from arrow_rows(file.get_batch(index) for index in range(file.num_record_batches))


def arrow_stream(result):
    with pa.ipc.open_stream(result["path"]) as stream:
        check_types(stream.schema, result)
        yield from arrow_rows(stream)


def check_types(schema, result):
    """`Field.type` is spelled as pyarrow does."""
    ours = [(field["name"], field["type"], field["nullable"]) for field in result["fields"]]
    theirs = [(field.name, str(field.type), field.nullable) for field in schema]
    assert without_items(ours) == without_items(theirs), (ours, theirs)


def without_items(fields):
    return [(name, re.sub("element|item", "item", kind), nullable) for name, kind, nullable in fields]


def arrow_rows(batches):
    for batch in batches:
        batch.validate(full=True)
        yield from map(list, zip(*(integers(column).to_pylist() for column in batch.columns)))


def integers(column):
    """Temporal columns as the integers that they are; microseconds."""
    kind = column.type
    if pa.types.is_date32(kind):
        return column.view(pa.int32())
    if pa.types.is_timestamp(kind) or pa.types.is_time64(kind):
        assert kind.unit == "us", kind
        return column.view(pa.int64())
    if pa.types.is_list(kind):
        offsets, items = column.offsets, integers(column.values)
        return pa.ListArray.from_arrays(offsets, items, mask=column.is_null()) if len(column) else column
    return column


def values_protobuf(result):
    """Each batch: its length, four bytes, then a rowgate.v1.ValueRows."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2
    file = descriptor_pb2.FileDescriptorProto(name="rows.proto", package="t", syntax="proto3", dependency=[struct_pb2.DESCRIPTOR.name])
    message = file.message_type.add(name="ValueRows")
    message.field.add(name="rows", number=1, label=3, type=11, type_name=".google.protobuf.ListValue")
    pool = descriptor_pool.Default()
    pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    rows_of = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.ValueRows"))
    with open(result["path"], "rb") as stream:
        while length := stream.read(4):
            batch = rows_of.FromString(stream.read(int.from_bytes(length, "little")))
            for row in batch.rows:
                yield [value_of(value) for value in row.values]


def value_of(value):
    kind = value.WhichOneof("kind")
    if kind == "list_value":
        return [value_of(item) for item in value.list_value.values]
    return None if kind == "null_value" else getattr(value, kind)


def jsonl_duckdb(result):
    """Texts, whole numbers and truths are compared; the rest it would read as floats."""
    plain = {"string": "VARCHAR", "bool": "BOOLEAN", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT"}
    columns = ", ".join("'{}': '{}'".format(field["name"].replace("'", "''"), plain.get(field["type"], "JSON")) for field in result["fields"])
    return fetched(duckdb.connect().execute(
        f"select * from read_json($path, columns = {{{columns}}}, format = 'newline_delimited', maximum_object_size = 16777216)",
        {"path": result["path"]}))


READERS = {
    "csv": [(csv_bytes, None), (csv_python, expected.same_csv), (csv_duckdb, expected.same_csv), (csv_arrow, expected.same_csv)],
    "jsonl": [(jsonl_python, expected.same_json), (jsonl_duckdb, expected.same_plain)],
    "json_lines": [(jsonl_python, expected.same_json)],
    "xlsx": [(xlsx_openpyxl, expected.same_xlsx)],
    "parquet": [(parquet_pyarrow, expected.same_arrow), (parquet_duckdb, expected.same_arrow)],
    "arrow": [(arrow_file, expected.same_arrow)],
    "arrow_ipc": [(arrow_stream, expected.same_arrow)],
    "values": [(values_protobuf, expected.same_values)],
}
