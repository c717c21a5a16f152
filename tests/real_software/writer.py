"""writer.py write DB ACKNOWLEDGED ROWS: inserts rows, one a transaction, and notes the id of each committed one.
writer.py check DB ACKNOWLEDGED: prints `ok ROWS` if the database is whole and has all noted rows."""

import os
import sqlite3
import sys

mode, path, noted = sys.argv[1:4]
db = sqlite3.connect(path, timeout=60, isolation_level=None)
if mode == "write":
    assert db.execute("pragma journal_mode").fetchone() == ("wal",)
    # The commit returns when the log is on the disk.
    db.execute("pragma synchronous = full")
    db.execute("pragma wal_autocheckpoint = 50")
    with open(noted, "a", buffering=1) as out:
        for n in range(int(sys.argv[4])):
            db.execute("begin immediate")
            row = db.execute("insert into t(writer, text) values (?, ?)", (os.getpid(), os.urandom(300).hex())).lastrowid
            if n % 3 == 0:
                db.execute("update t set text = text || 'x' where id = ?", (n % 1000 + 1,))
            db.execute("commit")
            out.write(f"{row}\n")
else:
    whole = db.execute("pragma integrity_check").fetchall()
    assert whole == [("ok",)], whole
    ids = {row for (row,) in db.execute("select id from t")}
    assert set(range(1, 1001)) <= ids, "rows of the lower are gone"
    text = open(noted).read()
    # The last line may have been cut off by the kill.
    lines = text[: text.rfind("\n") + 1].split()
    lost = [int(line) for line in lines if int(line) not in ids]
    assert not lost, f"{len(lost)} of {len(lines)} acknowledged rows are lost: {lost[:10]}"
    print("ok", len(ids))
