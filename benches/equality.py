#!/usr/bin/env python3
"""A whole orders table in five formats, each compared with what psql itself says: benches/equality starts it.

Truth is psql's own COPY as csv, loaded by DuckDB. csv, jsonl and Parquet are read by DuckDB, Arrow by pyarrow, xlsx by
openpyxl; both sides are compared as multisets of rows. ROWS (1000000), SOURCES (postgres,mariadb,sqlite).
"""
import os, pathlib, shutil, sys, tempfile
from decimal import Decimal

import run as bench

ROWS = int(os.environ.get("ROWS", "1000000"))
SOURCES = os.environ.get("SOURCES", "postgres,mariadb,sqlite").split(",")
NAMES = ("id order_no customer_name email status amount quantity discount is_paid created_at ship_date note").split()
# One spelling for every reader.
CANON = """id::bigint id, order_no::varchar order_no, customer_name::varchar customer_name, email::varchar email,
 status::bigint status, amount::decimal(12,2) amount, quantity::bigint quantity, discount::double discount,
 is_paid::bool is_paid, epoch_us({created}) created_us, ship_date::date ship_date, note::varchar note"""


def main():
    import duckdb
    bench.ROWS = ROWS
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rowgate-equality-", dir=os.environ.get("ROWGATE_TEST_DIR")))
    os.chmod(folder, 0o755)
    urls = bench.load(folder, SOURCES)
    truth = folder / "truth.csv"
    with open(truth, "wb") as out:
        bench.run("psql", "-X", "-q", urls["postgres"], "-c", "set timezone='UTC'", "-c",
                  "copy orders to stdout (format csv, header, force_quote (note))", stdout=out)
    db = duckdb.connect(str(folder / "compare.db"))
    db.execute("set TimeZone='UTC'").fetchall()
    db.execute(f"create table truth as select {CANON.format(created='created_at::timestamptz::timestamp')} from "
               f"read_csv('{truth}', header=true, all_varchar=true, max_line_size=10000000)").fetchall()
    server = bench.Server(folder, {name: urls[name] for name in SOURCES})
    wrong = 0
    try:
        for source in SOURCES:
            for format in ["csv", "jsonl", "parquet", "arrow", "xlsx"]:
                path = folder / f"{source}.{format}"
                bench.run(bench.ROWGATE, "--server", server.address, "submit", "--source", source, "--table", "orders",
                          "--format", format, "--output", path, stdout=bench.subprocess.DEVNULL)
                load(db, path, format)
                rows, = db.execute("select count(*) from ours").fetchall()[0]
                # openpyxl rounds date cells to the millisecond: compared by id, to half of one.
                exact = "* exclude (created_us)" if format == "xlsx" else "*"
                truth_rows, our_rows = f"select {exact} from truth", f"select {exact} from ours"
                missing, = db.execute(f"select count(*) from ({truth_rows} except all {our_rows})").fetchall()[0]
                added, = db.execute(f"select count(*) from ({our_rows} except all {truth_rows})").fetchall()[0]
                if format == "xlsx":
                    late, = db.execute("select count(*) from truth join ours using (id) "
                                       "where abs(truth.created_us - ours.created_us) > 500").fetchall()[0]
                    missing += late
                print(f"{source} {format}: {rows} rows, {missing} missing, {added} added", flush=True)
                wrong += missing + added + (rows != ROWS)
                path.unlink()
    finally:
        server.stop()
        db.close()
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if wrong else 0)


def load(db, path, format):
    # Zoned from PostgreSQL, plain from the others: both are UTC here.
    created = "created_at::timestamptz::timestamp"
    if format == "csv":
        relation = f"read_csv('{path}', header=true, all_varchar=true, max_line_size=10000000)"
    elif format == "jsonl":
        columns = ", ".join(f"{name}: 'VARCHAR'" for name in NAMES)
        relation = f"read_json('{path}', format='newline_delimited', columns={{{columns}}})"
    elif format == "parquet":
        relation = f"read_parquet('{path}')"
    elif format == "arrow":
        import pyarrow
        arrow_table = pyarrow.ipc.open_file(path).read_all()
        db.register("arrow_table", arrow_table)
        relation = "arrow_table"
    else:
        relation = xlsx(db, path)
    db.execute(f"create or replace table ours as select {CANON.format(created=created)} from {relation}").fetchall()


def xlsx(db, path):
    import csv, datetime, openpyxl
    plain = path.with_suffix(".plain.csv")
    book = openpyxl.load_workbook(path, read_only=True)
    with open(plain, "w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(NAMES)
        for sheet in book.worksheets:
            for index, row in enumerate(sheet.iter_rows(values_only=True)):
                if index:
                    writer.writerow(["" if cell is None else cell.isoformat() if isinstance(cell, datetime.datetime)
                                     else cell for cell in row])
    return f"read_csv('{plain}', header=true, all_varchar=true, max_line_size=10000000)"


if __name__ == "__main__":
    main()
