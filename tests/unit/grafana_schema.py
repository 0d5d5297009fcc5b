"""The part of Grafana's dashboard schema that the shipped dashboard uses, as strict models: a field that is not
here, a missing one and a value of another type are errors.

Written from the JSON Schemas that Grafana Labs publishes (grafana-foundation-sdk v0.0.18: `dashboard`, `stat`,
`timeseries`, `prometheus`), with which the dashboard was validated as well. They leave the expressions open, which
tests/unit/test_metrics_catalogue.py checks.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Empty = Annotated[list[None], Field(max_length=0)]
"""Nothing of that kind is used."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class DataSource(_Part):
    type: str
    uid: str


class GridPos(_Part):
    """The grid has 24 columns."""

    h: int = Field(gt=0)
    w: int = Field(gt=0, le=24)
    x: int = Field(ge=0, lt=24)
    y: int = Field(ge=0)


class Query(_Part):
    """Of the plugin `prometheus`."""

    datasource: DataSource
    expr: str
    refId: str
    legendFormat: str | None = None


class Threshold(_Part):
    value: float | None
    color: str


class Thresholds(_Part):
    mode: Literal["absolute", "percentage"]
    steps: list[Threshold]


class Stacking(_Part):
    mode: Literal["none", "normal", "percent"]
    group: str


class GraphStyle(_Part):
    """`custom` of the plugin `timeseries`."""

    drawStyle: Literal["line", "bars", "points"]
    fillOpacity: float
    lineWidth: float
    showPoints: Literal["auto", "never", "always"]
    stacking: Stacking


class FieldDefaults(_Part):
    unit: str
    min: float | None = None
    thresholds: Thresholds | None = None
    custom: GraphStyle | None = None


class FieldConfig(_Part):
    defaults: FieldDefaults
    overrides: Empty


class Reduced(_Part):
    calcs: list[str]
    fields: str
    values: bool


class StatOptions(_Part):
    graphMode: Literal["none", "line", "area"]
    colorMode: Literal["value", "background", "background_solid", "none"]
    justifyMode: Literal["auto", "center"]
    textMode: Literal["auto", "value", "value_and_name", "name", "none"]
    orientation: Literal["auto", "vertical", "horizontal"]
    reduceOptions: Reduced
    wideLayout: bool
    showPercentChange: bool
    percentChangeColorMode: Literal["standard", "inverted", "same_as_value"]


class Legend(_Part):
    displayMode: Literal["list", "table", "hidden"]
    placement: Literal["bottom", "right"]
    showLegend: bool
    calcs: list[str]


class Tooltip(_Part):
    mode: Literal["single", "multi", "none"]
    sort: Literal["asc", "desc", "none"]


class TimeSeriesOptions(_Part):
    legend: Legend
    tooltip: Tooltip


class _Panel(_Part):
    id: int = Field(gt=0)
    title: str
    description: str | None = None
    gridPos: GridPos
    datasource: DataSource
    targets: list[Query] = Field(min_length=1)
    fieldConfig: FieldConfig


class Stat(_Panel):
    type: Literal["stat"]
    options: StatOptions


class TimeSeries(_Panel):
    type: Literal["timeseries"]
    options: TimeSeriesOptions


class Row(_Part):
    type: Literal["row"]
    id: int = Field(gt=0)
    title: str
    collapsed: bool
    panels: Empty
    gridPos: GridPos


class Option(_Part):
    text: str | list[str]
    value: str | list[str]
    selected: bool | None = None


class Variable(_Part):
    name: str
    type: Literal["datasource"]
    label: str
    query: str
    current: Option | None = None
    hide: Literal[0, 1, 2]
    refresh: Literal[0, 1, 2]
    options: list[Option]
    regex: str
    includeAll: bool
    multi: bool


Variables = list[Variable]


class Templating(_Part):
    list: Variables


class Annotations(_Part):
    list: Empty


class Time(_Part):
    """`from` is a word of Python."""

    from_: str = Field(alias="from")
    to: str


class Dashboard(_Part):
    title: str
    uid: str = Field(min_length=8, max_length=40)
    tags: list[str]
    schemaVersion: int = Field(ge=36)
    version: int
    editable: bool
    graphTooltip: Literal[0, 1, 2]
    refresh: str | Literal[False]
    time: Time
    timezone: str
    templating: Templating
    annotations: Annotations
    links: Empty
    panels: list[Annotated[Row | Stat | TimeSeries, Field(discriminator="type")]]
