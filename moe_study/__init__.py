"""moe_study: ablation and design-space studies of mixture-of-experts language models."""
