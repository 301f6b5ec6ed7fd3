"""Programs that measure, and write what they measured into the documents."""
