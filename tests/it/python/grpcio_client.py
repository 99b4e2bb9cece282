"""Uses examples/python/export.py as a library and prints what it saw as JSON."""
import json, sys

server, source, example, path = sys.argv[1:]
sys.path.insert(0, example)
import export as client
import grpc
from google.protobuf.struct_pb2 import Value

rowgate = client.rowgate
exports = client.connect(server)


def spec(**more):
    return rowgate.ExportSpec(source=source, table=rowgate.TableRead(name="orders", order_by=["id desc"]), **more)


def error(call):
    try:
        call()
    except grpc.RpcError as refused:
        return client.explain(refused)
    raise AssertionError("it was not refused")


spooled = client.wait(exports, client.submit(exports, spec()).id)
file = client.submit(exports, spec(format=rowgate.Format(csv=rowgate.Csv(delimiter=";"))))
file = client.wait(exports, file.id)
result = client.download(exports, file.id, path)
values = list(client.stream(exports, rowgate.ROW_ENCODING_VALUES, spec=spec()))
lines = list(client.stream(exports, rowgate.ROW_ENCODING_JSON_LINES, export_id=spooled.id))
limited = rowgate.ExportSpec(source=source, sql="select * from orders where id < :below")
limited.params["below"].CopyFrom(Value(number_value=4))
print(json.dumps({
    "states": [spooled.state, file.state],
    "rows": result.rows,
    "schema": [[field.name, field.type] for field in result.schema],
    "values": [len(values), values[0]],
    "lines": [len(lines), lines[0]],
    "by_parameter": len(list(client.stream(exports, rowgate.ROW_ENCODING_VALUES, spec=limited))),
    "bad_fields": error(lambda: client.submit(exports, spec(filter="nosuch > 1", priority=10))),
    "bad_column": error(lambda: list(client.stream(exports, rowgate.ROW_ENCODING_VALUES, spec=spec(filter="größe > 1")))),
    "not_rows": error(lambda: list(client.stream(exports, rowgate.ROW_ENCODING_VALUES, export_id=file.id))),
}))
