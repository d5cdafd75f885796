"""The bytes that MLflow spends on the same points: its file store and its SQLite table.

usage: dotnet run -c Release bench/tracking/scale.cs dump FOLDER 100 > points.csv && python3 bench/tracking/peers.py points.csv

From the formats, MLflow itself is not needed: the file store appends "timestamp value step\\n" to one file for each metric of a run
(mlflow/store/tracking/file_store.py); the SQL store has one row a point in `metrics` (mlflow/store/tracking/dbmodels/initial_models.py).
"""
import collections
import os
import sqlite3
import sys
import tempfile
import uuid

files = collections.Counter()
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "mlflow.db")
    database = sqlite3.connect(path)
    database.execute("""CREATE TABLE metrics (key VARCHAR(250) NOT NULL, value FLOAT NOT NULL, timestamp BIGINT NOT NULL, run_uuid VARCHAR(32) NOT NULL,
        step BIGINT DEFAULT '0' NOT NULL, is_nan BOOLEAN DEFAULT '0' NOT NULL,
        CONSTRAINT metric_pk PRIMARY KEY (key, timestamp, step, run_uuid, value, is_nan))""")
    database.execute("CREATE INDEX index_metrics_run_uuid ON metrics (run_uuid)")
    ids = collections.defaultdict(lambda: uuid.uuid4().hex)
    points = 0
    for line in open(sys.argv[1], encoding="utf-8"):
        run, metric, step, time, value = line.rstrip("\n").split(",")
        files[run, metric] += len(f"{time} {float(value)!r} {step}\n")
        database.execute("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, 0)", (metric, float(value), int(time), ids[run], int(step)))
        points += 1
    database.commit()
    database.close()
    blocks = sum((size + 4095) // 4096 * 4096 for size in files.values())
    print(f"{points:,} points: file store {sum(files.values()) / points:.1f} bytes a point ({blocks / points:.1f} in blocks of 4 KiB, {len(files):,} files), "
          f"SQLite {os.path.getsize(path) / points:.1f}")
