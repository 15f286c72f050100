"""The paper, reproduced: its tables and figures beside ours. Imports what experiments imports."""
