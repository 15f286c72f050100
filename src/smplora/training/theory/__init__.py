"""The measurements of the paper's theory: gradients, curvature, (L0, L1)-smoothness. Imports what training imports."""
