"""The report of `imagebind zeroshot` as files: JSON, a page, and the picture of its confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from imagebind_cli.cli.configuration import refuse_useless
from imagebind_cli.cli.output import STDOUT, check_output_file, write_report_file

if TYPE_CHECKING:
    from imagebind_cli.evaluation import Classification, Comparison
    from imagebind_cli.pages.classification import RegionCards


@dataclass(frozen=True)
class ReportFiles:
    """The files of the report: JSON, a page, and its confusion matrix as a picture."""

    report: Path | None = None
    html: Path | None = None
    plot: Path | None = None

    @property
    def replaces_rows(self) -> bool:
        """Check whether stdout is for the report, and not for the rows."""
        return self.report == STDOUT

    def checked(self, has_truth: bool, has_regions: bool) -> ReportFiles:
        """Refuse files that could not be written at the end of the run, and leave out those that have no use in it.

        Raises:
            UsageError: there is neither truth to report on nor regions to show. UserError: a folder does not exist, or matplotlib is missing.
        """
        useful = self
        for name, path in vars(self).items():
            if path is None:
                continue
            if has_truth or (has_regions and name == "html"):
                check_output_file(path)
            else:
                refuse_useless(f"--{name}", "--report, --html and --plot compare with the truth; give --truth")
                useful = replace(useful, **{name: None})
        if useful.plot:
            from imagebind_cli.pages.classification import check_plot

            check_plot()
        return useful

    def write(self, result: Classification, regions: RegionCards | None) -> None:
        """Write the files. regions: for the page.

        Raises:
            UserError: one of them cannot be written.
        """
        report = result.report
        if self.html:
            from imagebind_cli.pages.classification import write_region_page, write_report_page

            if report:
                write_report_page(self.html, report.document, regions)
            elif regions is not None:
                write_region_page(self.html, regions, result.made[0])
        if report is None:
            return
        write_report_file(report, self.report)
        if self.plot and report.confusion is not None:
            from imagebind_cli.pages.classification import plot

            plot(report.confusion, report.classes, self.plot)

    def write_comparison(self, comparison: Comparison) -> None:
        """Write the files of a comparison of several models, which has no picture.

        Raises:
            UserError: one of them cannot be written.
        """
        write_report_file(comparison, self.report)
        if self.html:
            from imagebind_cli.pages.classification import write_comparison_page

            write_comparison_page(self.html, comparison)
