"""What attention and feed-forward layers add to the residual stream: capture, controls, RID and MixIG, report."""
