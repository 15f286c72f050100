"""The paper, reproduced: its tables and figures with the paper's numbers beside ours."""
