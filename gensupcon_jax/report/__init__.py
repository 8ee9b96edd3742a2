"""The report of a run and the contact sheet of a data set, each one offline HTML page."""

from gensupcon_jax.report.contact import ContactSheet, Picture, render_contact_sheet, write_contact_sheet
from gensupcon_jax.report.data import ReportData
from gensupcon_jax.report.findings import FeatureFindings, feature_findings
from gensupcon_jax.report.page import render_report, write_report
from gensupcon_jax.report.pictured import PicturedSplit

__all__ = [
    "ContactSheet",
    "FeatureFindings",
    "Picture",
    "PicturedSplit",
    "ReportData",
    "feature_findings",
    "render_contact_sheet",
    "render_report",
    "write_contact_sheet",
    "write_report",
]
