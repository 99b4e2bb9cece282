"""A small client in Python: exports a table to a CSV file, then streams the same table's rows.

    pip install grpcio grpcio-tools grpcio-status
    python -m grpc_tools.protoc -I proto --python_out=. --grpc_python_out=. proto/rowgate/v1/export.proto
    python examples/python/export.py 127.0.0.1:50051 shop orders orders.csv
"""

import hashlib
import json
import os
import sys
import time
import uuid

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status

# The generated modules are looked for in the working directory.
sys.path.insert(0, os.getcwd())
from rowgate.v1 import export_pb2 as rowgate  # noqa: E402
from rowgate.v1 import export_pb2_grpc  # noqa: E402


def connect(server):
    return export_pb2_grpc.ExportServiceStub(grpc.insecure_channel(server))


def submit(exports, spec):
    """Submits; the request_id makes it safe to send the same call again when its answer was lost."""
    request = rowgate.SubmitExportRequest(spec=spec, request_id=str(uuid.uuid4()))
    return exports.SubmitExport(request).export


def wait(exports, export_id):
    """Waits for the end, however long it takes: each call waits half a minute at most. A server that restarts says when
    to ask again (RetryInfo); the export is kept."""
    unanswered = 0
    ended = (rowgate.STATE_SUCCEEDED, rowgate.STATE_FAILED, rowgate.STATE_CANCELLED)
    while True:
        request = rowgate.GetStatusRequest(export_id=export_id, wait=Duration(seconds=30))
        try:
            export = exports.GetStatus(request).export
        except grpc.RpcError as error:
            unanswered += 1
            if error.code() != grpc.StatusCode.UNAVAILABLE or unanswered > 20:
                raise
            time.sleep(explain(error).get("retry_after_seconds", 3))
            continue
        unanswered = 0
        if export.state in ended:
            return export
        print(f"{export.progress.rows_written} rows so far", file=sys.stderr)


def download(exports, export_id, path):
    """Saves the file, and makes sure that it is the one that was written."""
    hashed = hashlib.sha256()
    result = None
    with open(path, "wb") as file:
        for piece in exports.DownloadResult(rowgate.DownloadResultRequest(export_id=export_id)):
            if piece.HasField("result"):
                result = piece.result
            hashed.update(piece.data)
            file.write(piece.data)
    if hashed.hexdigest() != result.sha256:
        raise OSError(f"{path} is damaged: download it again")
    return result


def stream(exports, encoding, **target):
    """Yields rows as they are read: dicts from JSON_LINES, lists from VALUES. A stream without a footer is incomplete."""
    footer = None
    for event in exports.StreamRows(rowgate.StreamRowsRequest(encoding=encoding, **target)):
        kind = event.WhichOneof("event")
        if kind == "batch" and encoding == rowgate.ROW_ENCODING_JSON_LINES:
            for line in event.batch.json_lines.split("\n"):
                yield json.loads(line)
        elif kind == "batch":
            for row in event.batch.values.rows:
                yield list(row)
        elif kind == "footer":
            footer = event.footer
    if footer is None:
        raise EOFError("the stream ended early")


def explain(error):
    """What an error tells: a reason to match on, bad fields, and whether to send the call again."""
    told = {"code": error.code().name, "message": error.details()}
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            told.update(reason=info.reason, domain=info.domain, metadata=dict(info.metadata))
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            told["fields"] = {bad.field: bad.description for bad in bad.field_violations}
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            told["retry_after_seconds"] = retry.retry_delay.ToTimedelta().total_seconds()
    return told


def main(server, source, table, path):
    exports = connect(server)
    rows = rowgate.ExportSpec(source=source, table=rowgate.TableRead(name=table))
    file = rowgate.ExportSpec(source=source, table=rowgate.TableRead(name=table), format=rowgate.Format(csv=rowgate.Csv()))
    export = wait(exports, submit(exports, file).id)
    if export.state != rowgate.STATE_SUCCEEDED:
        sys.exit(f"{export.error.reason}: {export.error.message}")
    result = download(exports, export.id, path)
    print(f"{path}: {result.rows} rows, {result.size_bytes} bytes")
    streamed = sum(1 for _ in stream(exports, rowgate.ROW_ENCODING_JSON_LINES, spec=rows))
    print(f"streamed: {streamed} rows")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except grpc.RpcError as error:
        sys.exit(json.dumps(explain(error), indent=2, ensure_ascii=False))
