"""What a Rerun recording holds."""

from __future__ import annotations

from rerun.chunk import RrdReader


class Recording:
    """A saved recording by entity."""

    def __init__(self, path):
        self.reader = RrdReader(path)
        self.tables = {}
        for chunk in self.reader.stream().collect().stream():
            self.tables.setdefault(chunk.entity_path.lstrip('/'), []).append(chunk.to_record_batch())

    def values(self, entity, component):
        """Return what was logged, in the order of the file."""
        batches = [batch for batch in self.tables.get(entity, ()) if component in batch.schema.names]
        return [value for batch in batches for value in batch.column(component).to_pylist()]

    def stamps(self, entity):
        times = [batch.column('stamp').cast('int64').to_pylist() for batch in self.tables[entity]]
        return {stamp for column in times for stamp in column}

    def texts(self, entity):
        return [text for [text] in self.values(entity, 'TextLog:text')]
