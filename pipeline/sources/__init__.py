"""The published lists: one file a source, the registry, readers, facts about hosts."""
