"""Writes report.html: one offline page that shows whether a run and its inputs are sane."""

from gensupcon_jax.report.data import ReportData
from gensupcon_jax.report.page import render_report, write_report

__all__ = ["ReportData", "render_report", "write_report"]
