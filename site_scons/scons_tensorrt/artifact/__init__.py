"""One engine as files: filename, sidecar, plan header, receipt, publishing, verification."""
