"""The node's two lower processes, below the agent: what keeps and watches the running attempts."""
