"""The ground floor: errors, files, random streams, the registry, the console, the cache, work over processes. Imports
no other room."""
