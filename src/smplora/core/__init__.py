"""The ground floor: errors, files, random streams, console, parallel work. Imports nothing of smplora."""
