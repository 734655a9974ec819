"""The forms of `--data` in the words of help and messages; imports nothing, since every --help needs it."""

FORMS = (
    "a JSONL, JSON, CSV, TSV or parquet file, an imagefolder, a folder saved by datasets, a Hub id "
    "OWNER/NAME[:CONFIG][@REVISION], or digits[:N][@SEED]"
)
HELP = (
    "JSONL, JSON, CSV, TSV or parquet file; imagefolder; folder saved by datasets; Hub id OWNER/NAME[:CONFIG][@REVISION]; or "
    "digits[:N][@SEED], the demo's questions. A #SPLIT behind it names a split."
)
