// A plugin of typedoc: the members of a type that is written inline are told by the docstring of what has that type, and
// need none of their own. (Those of named types do.)
import { Converter, ReflectionKind } from 'typedoc';

/** @param {import('typedoc').Reflection | undefined} reflection */
function isBelowParameter(reflection) {
  for (let each = reflection; each; each = each.parent)
    if (each.kindOf(ReflectionKind.Parameter)) return true;
  return false;
}

/** @param {import('typedoc').Application} app */
export function load(app) {
  app.converter.on(Converter.EVENT_RESOLVE_END, ({ project }) => {
    const told = app.options.getValue('intentionallyNotDocumented');
    for (const member of project.getReflectionsByKind(ReflectionKind.Property)) {
      // Those of parameters are never asked for.
      const isInline = member.parent?.kindOf(ReflectionKind.TypeLiteral) && !isBelowParameter(member);
      const name = member.getFriendlyFullName();
      if (isInline && !member.hasComment() && !told.includes(name)) told.push(name);
    }
  });
}
