// Renders templates with @huggingface/jinja. Standard input: [{template, variables}]; output: their texts, or {error}.
import { readFileSync } from "node:fs";
import { Template } from "@huggingface/jinja";

const cases = JSON.parse(readFileSync(0, "utf8"));
const render = ({ template, variables }) => {
  try {
    return new Template(template).render(variables);
  } catch (error) {
    return { error: String(error.message) };
  }
};
process.stdout.write(JSON.stringify(cases.map(render)));
