"""The work of each stage. A stage reads the job's files, asks a backend, leaves files; never retries, moves no job."""
