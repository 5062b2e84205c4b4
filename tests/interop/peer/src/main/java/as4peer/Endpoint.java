package as4peer;

import com.helger.collection.commons.CommonsArrayList;
import com.helger.collection.commons.ICommonsList;
import com.helger.http.EHttpMethod;
import com.helger.phase4.error.AS4Error;
import com.helger.phase4.error.AS4ErrorList;
import com.helger.phase4.incoming.AS4IncomingProfileSelectorConstant;
import com.helger.phase4.incoming.AS4RequestHandler;
import com.helger.phase4.incoming.IAS4IncomingMessageMetadata;
import com.helger.phase4.incoming.IAS4IncomingMessageState;
import com.helger.phase4.incoming.IAS4RequestHandlerErrorConsumer;
import com.helger.phase4.incoming.spi.IAS4IncomingMessageProcessorSPI;
import com.helger.phase4.model.message.AS4ErrorMessage;
import com.helger.phase4.servlet.AS4UnifiedResponse;
import com.helger.phase4.servlet.AS4XServletHandler;
import com.helger.phase4.servlet.IAS4ServletRequestHandlerCustomizer;
import com.helger.web.scope.IRequestWebScopeWithoutResponse;
import com.helger.xservlet.AbstractXServlet;

/** phase4's request handler for one site. */
public final class Endpoint extends AbstractXServlet {
  private static final long serialVersionUID = 1L;

  Endpoint(Site site) {
    ICommonsList<IAS4IncomingMessageProcessorSPI> processors = new CommonsArrayList<>(new Inbox(site));
    IAS4RequestHandlerErrorConsumer onError = new IAS4RequestHandlerErrorConsumer() {
      @Override
      public void onAS4ErrorMessage(IAS4IncomingMessageMetadata metadata, IAS4IncomingMessageState state,
          AS4ErrorList errors, AS4ErrorMessage response) {
        ICommonsList<Object> list = new CommonsArrayList<>();
        for (AS4Error e : errors)
          list.add(Inbox.error(e.getEbmsError()));
        Json.print(Json.map("event", "rejected", "site", site.name, "messageId", state.getMessageID(), "errors", list));
      }
    };
    // the body is an AS4 MIME message, not a form upload
    settings().setMultipartEnabled(false);
    AS4XServletHandler handler = new AS4XServletHandler();
    handler.setRequestHandlerCustomizer(new IAS4ServletRequestHandlerCustomizer() {
      @Override
      public void customizeBeforeHandling(IRequestWebScopeWithoutResponse scope, AS4UnifiedResponse response,
          AS4RequestHandler request) {
        request.setCryptoFactorySign(site.keys.sign);
        request.setCryptoFactoryCrypt(site.keys.crypt);
        request.setPModeResolver(site.agreement());
        request.setIncomingProfileSelector(new AS4IncomingProfileSelectorConstant(site.profile.id, true));
        request.setIncomingSecurityConfiguration(site.security());
        request.setProcessorSupplier(() -> processors);
        request.setErrorConsumer(onError);
      }

      @Override
      public void customizeAfterHandling(IRequestWebScopeWithoutResponse scope, AS4UnifiedResponse response,
          AS4RequestHandler request) {
        // nothing to do
      }
    });
    handlerRegistry().registerHandler(EHttpMethod.POST, handler);
  }
}
