// uPlot's module, served as uplot.js.
export { default } from 'uplot';
