"""Evaluating models on benchmark tasks: answers kept item by item, asking servers, paired statistics, reports."""
