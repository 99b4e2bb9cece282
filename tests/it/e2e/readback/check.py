"""Compares results of exports with what the database's own client says, cell by cell: check.py JOB.json, or as a module.

A job has `source` and `columns` for reference.py and `results`: path, format, options, fields (name, header, type,
nullable), and first_row, the row of the table that the result begins with. Prints what was compared as JSON; ends with 1
and the first differences if there are any.
"""
import itertools, json, sys, traceback

import readers, reference

SHOWN_MAX = 4


def check(job, result):
    """The rows that each reader read, and what was not as it should be."""
    counts, differences = {}, []
    for read, same in readers.READERS[result["format"]]:
        if read.__name__ in result.get("without", []):
            continue
        counts[read.__name__] = 0
        try:
            differences += compare(job, result, read, same, counts)
        except Exception:
            differences.append(f"{read.__name__}: {traceback.format_exc(limit=-3)}")
    return counts, differences


def compare(job, result, read, same, counts):
    if same is None:
        assert next(read(result), None) is None
        return []
    kinds = [column["kind"] for column in job["columns"]]
    assert len(kinds) == len(result["fields"]), result["fields"]
    options = [dict(result["options"], zone=job.get("zone", "UTC"), type=field["type"]) for field in result["fields"]]
    differences = []
    want = itertools.islice(told(job), result.get("first_row", 0), None)
    for number, (expected, got) in enumerate(itertools.zip_longest(want, read(result))):
        counts[read.__name__] += 1
        if expected is None or got is None or len(got) != len(kinds):
            differences.append(f"{read.__name__}, row {number}: {expected} and {got}")
        elif not all(map(same, kinds, expected, got, options)):
            for kind, left, right, option, field in zip(kinds, expected, got, options, result["fields"]):
                if not same(kind, left, right, option):
                    differences.append(f"{read.__name__}, row {number}, {field['name']} ({kind}): {left!r:.300} is {right!r:.300}")
        if len(differences) >= SHOWN_MAX:
            break
    return differences


def told(job):
    """The table's rows: asked for once, unless they are too many to keep."""
    if job.get("large"):
        return reference.rows(job["source"], job["columns"])
    if "rows" not in job:
        job["rows"] = list(reference.rows(job["source"], job["columns"]))
    return iter(job["rows"])


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    compared, failed = [], False
    for result in job["results"]:
        counts, differences = check(job, result)
        compared.append({"path": result["path"], "readers": counts})
        failed |= bool(differences)
        for difference in differences:
            print(f"{result['format']} {result['options']}: {difference}", file=sys.stderr)
    print(json.dumps(compared))
    sys.exit(failed)


if __name__ == "__main__":
    main()
