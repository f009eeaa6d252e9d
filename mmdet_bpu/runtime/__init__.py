"""What the host of a board does before and after the network; numpy only."""
